"""Descriptions: any optimizer or module as levels of memories, to read, draw, store and execute."""

from nestlearn.describe.data import Level
from nestlearn.describe.describe import describe
from nestlearn.describe.rebuild import Learner, rebuild
from nestlearn.describe.system import NestedSystem
from nestlearn.memory.described import Described

__all__ = ["Described", "Learner", "Level", "NestedSystem", "describe", "rebuild"]
