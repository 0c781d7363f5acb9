"""What is asked of a run, as plain data.

A spec crosses process borders and lives in the run folder as JSON, so it holds nothing but numbers, strings and lists.
Its ``key`` says everything on which the result depends: two specs with one key are one run, which is what makes it
possible to resume a comparison and to use a run of the tuning as a run of the final table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nestlearn.contenders import Contender, Variant, find_contender
from nestlearn.tasks import Task, make_task

__all__ = ["Pairs", "RunSpec"]

Pairs = tuple[tuple[str, Any], ...]


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

    @property
    def contender(self) -> Contender:
        """Who learns; ValueError if it is not to be found here."""
        return find_contender(self.variant.contender)

    @property
    def arguments(self) -> dict[str, Any]:
        """What the contender's ``make`` is given besides model and tables."""
        return {"elementwise_lr": self.elementwise_lr, **dict(self.fixed), **dict(self.settings)}

    def make_task(self) -> Task:
        """The task, of the run's size, on its device; ValueError if there is none such."""
        return make_task(self.task, dict(self.size), self.device, self.dtype)

    def to_plain(self) -> dict[str, Any]:
        """The spec as JSON can hold it; ``from_plain`` reads it back."""
        return asdict(self) | {name: dict(getattr(self, name)) for name in ("settings", "fixed", "size")}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> RunSpec:
        """The spec of which ``to_plain`` made ``plain``; TypeError or KeyError if it is none."""
        pairs = {name: tuple(plain[name].items()) for name in ("settings", "fixed", "size")}
        return cls(**{**plain, **pairs, "variant": Variant(**plain["variant"])})
