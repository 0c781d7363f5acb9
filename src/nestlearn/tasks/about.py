"""What readers are told of a task. A report reads it here, and so needs neither the task nor torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from os.path import exists
from types import MappingProxyType
from typing import ClassVar

from nestlearn.errors import did_you_mean
from nestlearn.foreign import shown
from nestlearn.tasks.data_file import DIGITS, SPEECHES, DataFile
from nestlearn.tasks.fashion_files import FILES

__all__ = [
    "ABOUT",
    "About",
    "AboutDelayedGradients",
    "AboutDigits",
    "AboutFashionMnist",
    "AboutOrthogonalTasks",
    "AboutOwnTask",
    "AboutQuadratic",
    "AboutRavine",
    "AboutSpeeches",
    "AboutText",
    "Figure",
    "about",
    "sources",
]


@dataclass(frozen=True)
class Figure:
    """A figure that a task reports besides the loss: its key in ``evaluate``, its heading, meaning and digits."""

    name: str
    heading: str
    meaning: str
    digits: int = 2


class About:
    """What readers are told of a task.

    Attributes:
        name: what users type.
        title: what readers of a report see.
        unit: of the loss.
        least: the lowest value that the loss can have, at which an interval of it ends; None if there is none.
        figure: the figure shown beside the loss; None if the loss says it all.
        data: the shipped or downloaded files that it reads.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str] = "nats"
    least: ClassVar[float | None] = None
    figure: ClassVar[Figure | None] = None
    data: ClassVar[tuple[DataFile, ...]] = ()


ACCURACY = Figure("accuracy", "accuracy %", "test accuracy, mean over seeds")


class AboutDigits(About):
    """Of ``DigitsTask``."""

    name: ClassVar[str] = "digits"
    title: ClassVar[str] = "Handwritten digits"
    least: ClassVar[float | None] = 0.0
    figure: ClassVar[Figure | None] = ACCURACY
    data: ClassVar[tuple[DataFile, ...]] = (DIGITS,)


class AboutSpeeches(About):
    """Of ``SpeechesTask``."""

    name: ClassVar[str] = "speeches"
    title: ClassVar[str] = "State of the Union speeches, byte by byte"
    unit: ClassVar[str] = "nats a byte"
    least: ClassVar[float | None] = 0.0
    figure: ClassVar[Figure | None] = Figure("bits", "bits/byte", "test loss in bits", 3)
    data: ClassVar[tuple[DataFile, ...]] = (SPEECHES,)


class AboutText(AboutSpeeches):
    """Of ``TextTask``."""

    name: ClassVar[str] = "text"
    title: ClassVar[str] = "A text of one's own"
    unit: ClassVar[str] = "nats a token"
    data: ClassVar[tuple[DataFile, ...]] = ()


class AboutDelayedGradients(AboutSpeeches):
    """Of ``DelayedGradientsTask``."""

    name: ClassVar[str] = "delayed-gradients"
    title: ClassVar[str] = "State of the Union speeches, gradients some steps late"


class AboutFashionMnist(About):
    """Of ``FashionMnistTask``."""

    name: ClassVar[str] = "fashion-mnist"
    title: ClassVar[str] = "Fashion-MNIST"
    least: ClassVar[float | None] = 0.0
    figure: ClassVar[Figure | None] = ACCURACY
    data: ClassVar[tuple[DataFile, ...]] = tuple(FILES.values())


class AboutRavine(About):
    """Of ``RavineTask``."""

    name: ClassVar[str] = "ravine"
    title: ClassVar[str] = "A curved ravine in two dimensions"
    unit: ClassVar[str] = "psi"
    least: ClassVar[float | None] = 0.0
    figure: ClassVar[Figure | None] = Figure("distance", "distance", "distance from the lowest point at the end", 4)


class AboutQuadratic(About):
    """Of ``QuadraticTask``."""

    name: ClassVar[str] = "quadratic"
    title: ClassVar[str] = "A rotated quadratic"
    unit: ClassVar[str] = "of the quadratic"
    least: ClassVar[float | None] = 0.0


class AboutOrthogonalTasks(About):
    """Of ``OrthogonalTasks``."""

    name: ClassVar[str] = "orthogonal-tasks"
    title: ClassVar[str] = "Tasks on orthogonal inputs, taking turns"
    unit: ClassVar[str] = "unexplained variance"
    least: ClassVar[float | None] = 0.0
    figure: ClassVar[Figure | None] = Figure("forgetting", "forgetting", "loss of the other tasks above the best's", 3)


class AboutOwnTask(About):
    """Of ``OwnTask``."""

    name: ClassVar[str] = "your task"
    title: ClassVar[str] = "A task of your own"
    unit: ClassVar[str] = "of your own"


ABOUT: Mapping[str, type[About]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            AboutDigits,
            AboutSpeeches,
            AboutText,
            AboutDelayedGradients,
            AboutFashionMnist,
            AboutRavine,
            AboutQuadratic,
            AboutOrthogonalTasks,
        )
    }
)
"""Every task that has a name; ``module:function`` is one too."""


def about(name: str) -> type[About]:
    """What readers are told of the task called ``name``; nothing of the user's is imported for it.

    Raises:
        ValueError: there is no such task; the message lists the names and the nearest one.
    """
    if ":" in name:
        return _own(name)
    if name not in ABOUT:
        own = f" For a text of your own: --task text --set task.files={name}." if exists(name) else ""
        raise ValueError(
            f"unknown task {shown(name)}: expected one of {', '.join(sorted(ABOUT))}, or module:function for one of "
            f"your own.{own or did_you_mean(name, ABOUT)}"
        )
    return ABOUT[name]


@lru_cache(maxsize=64)
def _own(name: str) -> type[About]:
    return type("AboutOwnTask", (AboutOwnTask,), {"name": name, "title": name, "__module__": __name__})


def sources(tasks: Iterable[str]) -> list[DataFile]:
    """The data files behind these tasks, each once."""
    return list(dict.fromkeys(file for name in tasks for file in about(name).data))
