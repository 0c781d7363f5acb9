"""Descriptions: any optimizer or module as levels of memories, to read, draw, store and execute."""

from nestlearn.descriptions.data import Level
from nestlearn.descriptions.describe import describe
from nestlearn.descriptions.rebuild import Learner, rebuild
from nestlearn.descriptions.system import NestedSystem
from nestlearn.memory.described import Described

__all__ = ["Described", "Learner", "Level", "NestedSystem", "describe", "rebuild"]
