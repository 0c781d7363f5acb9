"""Tasks by the names that users type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch

from nestlearn.errors import choice
from nestlearn.tasks.data import DIGITS, SPEECHES, DataFile, read_data_file
from nestlearn.tasks.digits import DigitsTask
from nestlearn.tasks.speeches import SpeechesTask
from nestlearn.tasks.task import Task

__all__ = ["TASKS", "check_data", "make_task", "sources"]

TASKS: Mapping[str, type[Task]] = MappingProxyType({kind.name: kind for kind in (DigitsTask, SpeechesTask)})
"""Every task, by name."""

FILES: Mapping[str, tuple[DataFile, ...]] = {"digits": (DIGITS,), "speeches": (SPEECHES,)}


def sources(tasks: Iterable[str]) -> list[DataFile]:
    """The data files behind these tasks, each once."""
    return list(dict.fromkeys(file for name in tasks for file in FILES.get(name, ())))


def check_data(tasks: Iterable[str]) -> None:
    """Read the data files of these tasks: a wrong one is a DataFileError before anything is trained."""
    for file in sources(tasks):
        read_data_file(file)


def make_task(name: str, size: Mapping[str, int], device: str, dtype: str) -> Task:
    """The task called ``name``, with the fields in ``size`` in place of its defaults.

    Raises:
        ValueError: there is no such task; the message lists the names and the nearest one.
    """
    choice("task", name, TASKS)
    return TASKS[name](**size, device=device, dtype=getattr(torch, dtype))
