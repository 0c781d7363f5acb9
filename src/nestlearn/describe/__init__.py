"""Descriptions: any optimizer or module as levels of memories, to read, draw, store and execute."""

from nestlearn.describe.data import Level, Memory
from nestlearn.describe.describe import describe
from nestlearn.describe.rebuild import Learner, rebuild
from nestlearn.describe.system import NestedSystem

__all__ = ["Learner", "Level", "Memory", "NestedSystem", "describe", "rebuild"]
