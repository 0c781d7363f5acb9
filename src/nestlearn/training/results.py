"""What came of runs, as plain data: the result of one run, and the table that is made of many.

All of it is frozen, crosses process borders and lives in the run folder as JSON: a ``RunResult`` as lines of
``metrics.jsonl`` and ``events.jsonl``, the ``Results`` of a comparison or of a training as ``results.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

from nestlearn.training.series import Point

__all__ = ["FEWEST", "Difference", "Equal", "Point", "Reached", "Results", "Row", "RunResult", "Sample", "Trial"]


FEWEST = 4
"""The seeds below which nothing is called significant.

With two or three the scatter is guessed from one or two numbers: where those lie close together by luck, a difference
of a thousandth looks sure, and where they do not, none of any size does.
"""


@dataclass(frozen=True)
class RunResult:
    """What a run gave. ``status`` is ``"finished"`` or ``"diverged"`` (then ``reason`` says why and losses may be
    missing).

    Attributes:
        validation, test: the task's figures at the end; empty if the run diverged (or, for test, was not of full
            length).
        train: the training loss, at each point the mean since the point before; seconds count training only.
        curve: the validation loss.
        surprises: ``[step, memory, surprise]`` rows from ``opt.surprise``.
        step_ms, optimizer_ms: median milliseconds of a whole training step, and of ``opt.step`` alone.
        state_bytes: bytes of all tensors in the optimizer's state at the end.
    """

    key: str
    task: str
    variant: str
    settings: dict[str, Any]
    seed: int
    steps: int
    full: bool
    status: str
    reason: str = ""
    validation: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    step_ms: float = 0.0
    optimizer_ms: float = 0.0
    state_bytes: int = 0
    parameters: int = 0
    train: Sequence[Point] = field(default_factory=list)
    curve: Sequence[Point] = field(default_factory=list)
    surprises: Sequence[Sequence[Any]] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The validation loss by which tuning chooses; infinite if the run diverged."""
        return self.validation["loss"] if self.status == "finished" else float("inf")

    def summary(self) -> dict[str, Any]:
        """The result without its series, for one line of ``metrics.jsonl``."""
        return {name: value for name, value in vars(self).items() if name not in ("train", "curve", "surprises")}


@dataclass(frozen=True)
class Sample:
    """A figure over the seeds: mean, sample standard deviation (None for one seed), and the value of each seed."""

    mean: float
    spread: float | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class Difference(Sample):
    """A difference of two test losses, seed by seed; below zero the first is better.

    Attributes:
        interval: the 95% interval of the mean; None for one seed.
        p_alone: of a paired t-test; None where there is no scatter to judge by.
        p, significant: the same corrected for the number of contenders, and whether it is below 5%; None until
            corrected, and for controls, which make no claim. Nothing is significant below ``FEWEST`` seeds.
    """

    interval: tuple[float, float] | None = None
    p_alone: float | None = None
    p: float | None = None
    significant: bool | None = None


@dataclass(frozen=True)
class Reached:
    """The way to a target, a validation loss: mean steps and seconds over the seeds that ``reached`` it, ``of`` all."""

    target: float
    steps: float | None
    seconds: float | None
    reached: int
    of: int


@dataclass(frozen=True)
class Equal:
    """What the chosen settings give with the seconds, or with the bytes, of the baseline."""

    steps: int
    size: dict[str, Any]
    parameters: int
    bytes: int
    seconds: float
    status: str
    test: dict[str, Sample]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and the validation loss they gave; None if the trial diverged."""

    settings: dict[str, Any]
    status: str
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A contender or a control in the table of a task.

    Attributes:
        name: of the variant: ``"Muon"`` or ``"Muon (control)"``.
        contender, family, equation, about: of its contender.
        control_name, control_is: the row of its control, and what makes it one; None and empty without a control.
        settings, fixed: the tuned settings that the validation split chose, and those that are not tuned.
        edges, warnings: where the best value lay at an edge that the grid could not leave, in short and in words.
        grid: all values tried of each setting.
        validation, test: the task's figures; empty if a seed diverged.
        interval: the 95% interval of the mean test loss.
        step_ms, optimizer_ms: the best medians over all its runs.
        runs: their keys, one a seed.
        spec: ``RunSpec.to_plain`` of the first of them.
    """

    name: str
    contender: str
    control: bool
    control_name: str | None = None
    control_is: str = ""
    family: str
    equation: str
    about: str
    status: str
    reason: str = ""
    settings: dict[str, Any]
    fixed: dict[str, Any]
    edges: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    grid: dict[str, tuple[float, ...]] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    trials_count: int = 0
    diverged_trials: int = 0
    validation: dict[str, Sample]
    test: dict[str, Sample]
    interval: tuple[float, float] | None
    against_control: Difference | None = None
    against_baseline: Difference | None = None
    against_muon: Difference | None = None
    to_target: Reached | None = None
    equal_time: Equal | None = None
    equal_bytes: Equal | None = None
    step_ms: float | None
    optimizer_ms: float | None
    state_bytes: int
    parameters: int
    runs: tuple[str, ...]
    spec: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Results:
    """The tables of all tasks, best test loss first; ``budget`` is how many trials every search has before it grows."""

    baseline: str
    muon: str
    preset: str | None = None
    search: str | None = None
    budget: int | None = None
    correction: str | None = None
    warnings: tuple[str, ...] = ()
    tasks: dict[str, tuple[Row, ...]]

    def to_plain(self) -> dict[str, Any]:
        """The results as JSON holds them; ``from_plain`` reads them back."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Results:
        """What ``to_plain`` gave; ValueError if it is something else."""
        return _RESULTS.validate_python(plain)


_RESULTS = TypeAdapter(Results)
