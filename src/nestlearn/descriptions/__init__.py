"""Descriptions: any optimizer or module as levels of memories, to read, draw, store and execute."""

from typing import TYPE_CHECKING

from nestlearn.lazy import late
from nestlearn.memory.described import Described

if TYPE_CHECKING:
    from nestlearn.descriptions.data import Level
    from nestlearn.descriptions.describe import describe
    from nestlearn.descriptions.rebuild import Learner, rebuild
    from nestlearn.descriptions.system import NestedSystem

__all__ = ["Described", "Learner", "Level", "NestedSystem", "describe", "rebuild"]

late(__name__, data="Level", describe="describe", rebuild="Learner rebuild", system="NestedSystem")
