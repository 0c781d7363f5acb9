"""Tasks by the names that users type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from nestlearn.tasks.about import about, sources
from nestlearn.tasks.delayed_gradients import DelayedGradientsTask
from nestlearn.tasks.digits import DigitsTask
from nestlearn.tasks.fashion_mnist import FashionMnistTask
from nestlearn.tasks.orthogonal_tasks import OrthogonalTasks
from nestlearn.tasks.own import own_task
from nestlearn.tasks.quadratic import QuadraticTask
from nestlearn.tasks.ravine import RavineTask
from nestlearn.tasks.speeches import SpeechesTask
from nestlearn.tasks.task import Task
from nestlearn.tasks.text import TextTask

__all__ = ["TASKS", "check_data", "make_task", "task_type"]

TASKS: Mapping[str, type[Task]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            DigitsTask,
            SpeechesTask,
            TextTask,
            DelayedGradientsTask,
            FashionMnistTask,
            RavineTask,
            QuadraticTask,
            OrthogonalTasks,
        )
    }
)
"""Every task that has a name; ``module:function`` is one too, see ``nestlearn.tasks.own``."""


def task_type(name: str) -> type[Task]:
    """The class of a task by its name; nothing of the user's is imported for it.

    Raises:
        ValueError: there is no such task; the message lists the names and the nearest one.
    """
    if ":" in name:
        return own_task(name)
    about(name)
    return TASKS[name]


def check_data(tasks: Iterable[str]) -> None:
    """Read the data files of these tasks, downloading those that have to be: a missing or wrong one is a DataFileError
    before anything is trained.
    """
    for file in sources(tasks):
        file.read()


def make_task(name: str, size: Mapping[str, Any], device: str, dtype: str) -> Task:
    """The task called ``name``, with the fields in ``size`` in place of its defaults.

    Raises:
        ValueError: there is no such task, it has no such field (the message names the nearest one), or a field cannot
            have this value.
    """
    return task_type(name).sized(size, device, getattr(torch, dtype))
