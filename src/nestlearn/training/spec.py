"""A run, as plain data: what was asked (``RunSpec``) and what came of it (``RunResult``).

Both cross process borders and live in the run folder as JSON, so they hold nothing but numbers, strings and lists. A
spec has a ``key`` that says everything on which the result depends: two specs with one key are one run, which is what
makes it possible to resume a comparison and to use a run of the tuning as a run of the final table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Pairs", "RunResult", "RunSpec", "Variant"]

Pairs = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, order=True)
class Variant:
    """A contender or its control."""

    contender: str
    control: bool = False

    @property
    def name(self) -> str:
        return f"{self.contender} (control)" if self.control else self.contender


@dataclass(frozen=True)
class RunSpec:
    """One training run: everything on which its result depends.

    ``settings`` are the optimizer's tuned settings (``lr`` among them), ``fixed`` the ones that are not, ``size`` the
    task's. ``points`` is how often the validation loss is taken on the way; ``full`` marks a run of full length, the
    only kind that looks at the test split. ``schedule`` and ``warmup`` (steps) say how the learning rates move.
    """

    task: str
    variant: Variant
    settings: Pairs
    seed: int
    steps: int
    fixed: Pairs = ()
    size: Pairs = ()
    elementwise_lr: float = 1e-2
    points: int = 8
    full: bool = True
    device: str = "cpu"
    dtype: str = "float32"
    schedule: str = "linear"
    warmup: int = 0

    @property
    def key(self) -> str:
        """A readable, unique name, such as ``digits/Muon/lr=0.01,retention=0.9/seed0/steps100-1f3a9c02``."""
        rates = [self.elementwise_lr, self.schedule, self.warmup]
        rest = json.dumps([self.fixed, self.size, *rates, self.points, self.full, self.device, self.dtype])
        digest = hashlib.sha256(rest.encode()).hexdigest()[:8]
        settings = ",".join(f"{name}={value:g}" for name, value in self.settings)
        return f"{self.task}/{self.variant.name}/{settings}/seed{self.seed}/steps{self.steps}-{digest}"

    def to_plain(self) -> dict[str, Any]:
        """The spec as JSON can hold it; ``from_plain`` reads it back."""
        return asdict(self) | {name: dict(getattr(self, name)) for name in ("settings", "fixed", "size")}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> RunSpec:
        """The spec of which ``to_plain`` made ``plain``; TypeError or KeyError if it is none."""
        pairs = {name: tuple(plain[name].items()) for name in ("settings", "fixed", "size")}
        return cls(**{**plain, **pairs, "variant": Variant(**plain["variant"])})


@dataclass(frozen=True)
class RunResult:
    """What a run gave. ``status`` is ``"finished"`` or ``"diverged"`` (then ``reason`` says why and losses may be
    missing).

    Attributes:
        validation, test: the task's figures at the end; empty if the run diverged (or, for test, was not of full
            length).
        train: ``[step, seconds, training loss]`` rows; the loss is the mean since the row before, the seconds count
            training only.
        curve: ``[step, seconds, validation loss]`` rows.
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
    train: list[list[float]] = field(default_factory=list)
    curve: list[list[float]] = field(default_factory=list)
    surprises: list[list[Any]] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The validation loss by which tuning chooses; infinite if the run diverged."""
        return self.validation["loss"] if self.status == "finished" else float("inf")

    def summary(self) -> dict[str, Any]:
        """The result without its series, for one line of ``metrics.jsonl``."""
        return {name: value for name, value in asdict(self).items() if name not in ("train", "curve", "surprises")}
