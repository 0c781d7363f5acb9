"""The settings of a comparison, the two presets, and what a user may change.

A preset is complete; options replace single fields. The resolved settings are written to ``config.yaml`` of the run
folder, from which ``--resume`` reads them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
import yaml

from nestlearn.errors import choice
from nestlearn.tasks import TASKS, make_task
from nestlearn.training.contenders import BASELINE, CONTENDERS, find_contenders

__all__ = ["PRESETS", "Settings", "parse_seeds", "preset", "resolve"]

DTYPES = ("float32", "float64", "bfloat16")


@dataclass(frozen=True)
class Settings:
    """All settings of a comparison.

    Attributes:
        steps: training steps of a full run, per task.
        trial_fraction: the part of those steps that a run on the grid takes.
        keep: how many settings of the grid are then run at full length, with every seed.
        lr_points, lr_ratio: size of every learning-rate grid, and the factor between neighbours.
        retentions: the values tried for every contender that has a retention.
        elementwise_lr: the rate for vectors, embeddings and heads, the same for every contender.
        sizes: fields of the task (network, batch, held-out windows), per task.
        points: looks at the validation split during a full run.
    """

    preset: str
    tasks: tuple[str, ...] = tuple(TASKS)
    optimizers: tuple[str, ...] = tuple(CONTENDERS)
    seeds: tuple[int, ...] = (0, 1)
    steps: Mapping[str, int] = field(default_factory=lambda: {"digits": 180, "speeches": 180})
    trial_fraction: float = 0.333
    keep: int = 2
    lr_points: int = 4
    lr_ratio: float = 3.0
    retentions: tuple[float, ...] = (0.8, 0.95)
    elementwise_lr: float = 1e-2
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: {"digits": {}, "speeches": {}})
    points: int = 8
    device: str = "cpu"
    dtype: str = "float32"
    workers: int = 2

    def to_yaml(self) -> str:
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        text: str = yaml.safe_dump(plain, sort_keys=False, default_flow_style=None)
        return text

    @classmethod
    def from_yaml(cls, text: str) -> Settings:
        """Read what ``to_yaml`` wrote.

        Raises:
            ValueError: the text is not such a document, or holds an unknown field.
        """
        try:
            plain = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"the settings are not YAML: {error}") from error
        if not isinstance(plain, dict) or "preset" not in plain:
            raise ValueError("expected the settings of a comparison with a field `preset`")
        known = {f.name for f in fields(cls)}
        for name in plain:
            choice("setting", name, known)
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        return cls(**values)


PRESETS: Mapping[str, Settings] = {
    "demo": Settings(
        preset="demo",
        sizes={
            "digits": {},
            "speeches": {
                "dim": 32,
                "heads": 2,
                "context": 32,
                "batch": 16,
                "validation_windows": 128,
                "test_windows": 512,
            },
        },
    ),
    "full": Settings(
        preset="full",
        seeds=(0, 1, 2),
        steps={"digits": 400, "speeches": 400},
        trial_fraction=0.25,
        keep=3,
        lr_points=7,
        lr_ratio=2.0,
        retentions=(0.7, 0.8, 0.9, 0.95),
        sizes={"digits": {}, "speeches": {"dim": 96, "context": 64, "validation_windows": 128, "test_windows": 512}},
        points=16,
    ),
}


def preset(name: str) -> Settings:
    """The preset called ``name``; ValueError with the nearest name if there is none."""
    choice("preset", name, PRESETS)
    return PRESETS[name]


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"0..2"`` -> (0, 1, 2); ``"0,1"`` -> (0, 1); ``"3"`` -> (3,). ValueError says what was expected."""
    try:
        if ".." in text:
            first, last = (int(part) for part in text.split("..", 1))
            seeds = tuple(range(first, last + 1))
        else:
            seeds = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0:
        raise ValueError(f"expected seeds such as 0..2 or 0,1 (not negative, first before last), got {text!r}")
    return seeds


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}: expected auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"the device {name!r} was asked for, but torch sees no CUDA device; use --device auto or cpu")
    return name


def resolve(base: Settings, steps: int | None = None, **changes: Any) -> Settings:
    """``base`` with the given fields in place of its own, checked; None means unchanged.

    The baseline is always among the optimizers: without it a table has nothing to compare with.

    Raises:
        ValueError: an unknown name (with the nearest one), or a number out of range.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    settings = replace(base, **changes)
    if steps is not None:
        if steps < 1:
            raise ValueError(f"expected at least one step, got {steps}")
        settings = replace(settings, steps=dict.fromkeys(settings.tasks, steps))
    if settings.dtype not in DTYPES:
        raise ValueError(f"unknown dtype {settings.dtype!r}: expected one of {', '.join(DTYPES)}")
    if settings.workers < 1:
        raise ValueError(f"expected at least one worker, got {settings.workers}")
    for task in settings.tasks:
        make_task(task, {}, "cpu", settings.dtype)
    chosen = tuple(c.name for c in find_contenders([BASELINE, *settings.optimizers]))
    return replace(settings, optimizers=chosen, device=_device(settings.device))
