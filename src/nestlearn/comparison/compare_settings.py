"""The settings of a comparison, the presets, and the checks that need to know tasks and contenders.

A preset is complete; a file (``--config``), assignments (``--set``) and options replace single fields. The resolved
settings are written to ``config.yaml`` of the run folder, from which ``--resume`` reads them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, field_validator

from nestlearn.contenders import BASELINE, CONTENDERS, MUON, find_contenders, rule_name
from nestlearn.errors import as_settings_error, choice
from nestlearn.tasks import TASKS, make_task
from nestlearn.training.settings import Settings, check_range, check_seeds, find_device, merge, parse_seeds

__all__ = ["PRESETS", "CompareSettings", "preset", "resolve"]


class CompareSettings(Settings):
    """All settings of a comparison; ``docs/compare.md`` explains them."""

    kind: Literal["compare"] = "compare"
    preset: str = Field(default="demo", description="the preset from which the settings started")
    tasks: tuple[str, ...] = Field(
        default=("digits", "speeches"), min_length=1, description="names, or `module:function`"
    )
    optimizers: tuple[str, ...] = Field(
        default=tuple(CONTENDERS),
        description="names, rules (`mine=chain(...)`, or a mapping of name, rule, without), `module:function`; AdamW "
        "and Muon are always among them",
    )
    seeds: tuple[int, ...] = Field(
        default=(0, 1), min_length=1, description="seeds of the final runs; the first one tunes"
    )
    steps: int = Field(default=180, ge=1, description="training steps of a full run")
    task_steps: dict[str, int] = Field(default={}, description="the same for single tasks")
    sizes: dict[str, dict[str, Any]] = Field(
        default={}, description="fields of single tasks: network, batch, held-out windows"
    )
    fixed: dict[str, dict[str, Any]] = Field(
        default={}, description="arguments of single optimizers that are not tuned"
    )
    elementwise_lr: float = Field(
        default=1e-2, gt=0, description="rate for vectors, embeddings and heads, the same for every contender"
    )
    schedule: Literal["linear", "constant", "cosine"] = Field(
        default="linear", description="of all learning rates over a run"
    )
    search: Literal["grid", "tpe"] = Field(
        default="grid", description="how trials are chosen: grids, or optuna's TPE sampler"
    )
    trial_fraction: float = Field(default=0.333, gt=0, le=1, description="the part of the steps that a trial takes")
    lr_points: int = Field(default=3, ge=1, description="learning rates of the coarse grid")
    lr_ratio: float = Field(default=3.0, gt=1, description="the factor between neighbours")
    retentions: tuple[float, ...] = Field(default=(0.6, 0.9), min_length=1, description="retentions of the coarse grid")
    weight_decays: tuple[float, ...] = Field(
        default=(0.0,),
        min_length=1,
        description="weight decays of the fine grid, as for AdamW; the coarse one has the first",
    )
    inner_factors: tuple[float, ...] = Field(
        default=(1.0,),
        min_length=1,
        description="factors of the optimizer's own inner_lr on the fine grid; the coarse one has 1",
    )
    refine: int = Field(default=2, ge=0, description="how many coarse settings get a fine grid around them")
    grow: int = Field(default=2, ge=0, description="how often a grid may grow beyond an edge where the best value lies")
    keep: int = Field(default=2, ge=1, description="how many settings are then run at full length, with every seed")
    points: int = Field(default=8, ge=1, description="looks at the validation split during a full run")
    matched: tuple[Literal["time", "bytes"], ...] = Field(
        default=(), description="also run the chosen settings at the baseline's seconds, and at its bytes"
    )
    device: str = Field(default="cpu", description="`auto`, `cpu` or `cuda`")
    dtype: Literal["float32", "float64", "bfloat16"] = Field(
        default="float32", description="of networks and their inputs"
    )
    executor: Literal["serial", "processes", "dask"] = Field(
        default="processes", description="who carries the runs out"
    )
    workers: int = Field(default=2, ge=1, le=1024, description="worker processes, one thread each")
    cluster: str | None = Field(
        default=None, description="address of a Dask scheduler; without one, a cluster on this machine"
    )

    @field_validator("optimizers", mode="before")
    @classmethod
    def _by_rule(cls, given: Any) -> Any:
        if not isinstance(given, list | tuple):
            return given
        return [rule_name(**_rule_of(each)) if isinstance(each, Mapping) else each for each in given]

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, given: Any) -> Any:
        return parse_seeds(str(given)) if isinstance(given, int | str) else given

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return check_seeds(seeds)

    @field_validator("retentions", "weight_decays", "inner_factors")
    @classmethod
    def _increasing(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if list(values) != sorted(set(values)) or values[0] < 0:
            raise ValueError(f"expected increasing values, none negative, got {list(values)}")
        return values

    @field_validator("retentions")
    @classmethod
    def _below_one(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if values[-1] >= 1:
            raise ValueError(f"expected retentions below 1, got {list(values)}")
        return values

    @field_validator("inner_factors")
    @classmethod
    def _has_one(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if 1.0 not in values or values[0] == 0:
            raise ValueError(f"expected factors above zero with 1 among them, got {list(values)}")
        return values

    def steps_of(self, task: str) -> int:
        """The training steps of a full run on ``task``."""
        return self.task_steps.get(task, self.steps)


_SMALL_SPEECHES = {
    "dim": 32,
    "heads": 2,
    "context": 32,
    "batch": 16,
    "validation_windows": 128,
    "test_windows": 512,
}
_SPEECHES = {"dim": 96, "context": 64, "validation_windows": 128, "test_windows": 512}

DEMO = ("AdamW", "DeepMomentum", "SOAP", "Muon", "Nested", "LayerMomentum")
"""Who takes part in four minutes: the two that others use, and a memory of each kind."""

PRESETS: Mapping[str, CompareSettings] = MappingProxyType(
    {
        "demo": CompareSettings(
            preset="demo",
            optimizers=DEMO,
            seeds=(0, 1, 2, 3, 4),
            sizes={"speeches": _SMALL_SPEECHES},
            grow=1,
        ),
        "quick": CompareSettings(
            preset="quick",
            seeds=(0, 1, 2),
            steps=300,
            sizes={"speeches": _SMALL_SPEECHES},
            trial_fraction=0.25,
            retentions=(0.6, 0.8, 0.95),
            weight_decays=(0.0, 0.1),
            inner_factors=(0.3, 1.0, 3.0),
            refine=1,
            grow=3,
        ),
        "full": CompareSettings(
            preset="full",
            seeds=(0, 1, 2, 3, 4),
            steps=400,
            sizes={"speeches": _SPEECHES},
            trial_fraction=0.25,
            lr_points=5,
            lr_ratio=2.0,
            retentions=(0.6, 0.8, 0.9, 0.95),
            weight_decays=(0.0, 0.1, 0.3),
            inner_factors=(0.3, 1.0, 3.0),
            grow=5,
            keep=3,
            points=16,
            matched=("time", "bytes"),
        ),
    }
)


@as_settings_error()
def preset(name: str) -> CompareSettings:
    """The preset called ``name``; SettingsError with the nearest name if there is none."""
    choice("preset", name, PRESETS)
    return PRESETS[name]


def _rule_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """A contender that is given as name, rule and without, as ``rule_name`` takes it."""
    for key in given:
        choice("key of an optimizer that is a rule", key, ("name", "rule", "without"))
    if "rule" not in given:
        raise ValueError(f"expected a rule beside the name, got {dict(given)!r}")
    return {"rule": given["rule"], "label": given.get("name", ""), "without": given.get("without", "")}


def _packages(settings: CompareSettings) -> None:
    """Refuse settings for which an optional package is missing."""
    wanted = [("search: tpe", settings.search == "tpe", "optuna", "search")]
    wanted += [("executor: dask", settings.executor == "dask", "distributed", "cluster")]
    for what, asked, package, extra in wanted:
        if asked and find_spec(package) is None:
            raise ValueError(f'{what} needs {package}, which is not installed: pip install "nestlearn[{extra}]"')


@as_settings_error()
def resolve(settings: CompareSettings, **changes: Any) -> CompareSettings:
    """``settings`` with the given fields in place of its own, checked as far as that goes without training; None means
    unchanged, ``steps`` hold for every task.

    The baseline and Muon are always among the optimizers: without them a table has nothing to compare with.

    Raises:
        SettingsError: an unknown name (with the nearest one), a value that does not fit.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    settings = merge(settings, given)
    if "steps" in given:
        settings = settings.model_copy(update={"task_steps": {}})
    _packages(settings)
    if settings.cluster and settings.executor != "dask":
        raise ValueError(f"cluster: expected it with executor: dask, got executor: {settings.executor}")
    for task in settings.tasks:
        make_task(task, settings.sizes.get(task, {}), "cpu", settings.dtype)
    found = find_contenders([BASELINE, MUON, *settings.optimizers])
    labels = [contender.label for contender in found]
    for label in {label for label in labels if labels.count(label) > 1}:
        raise ValueError(f"optimizers: {labels.count(label)} are called {label!r}; give rules a name, as in mine=...")
    for name, arguments in settings.fixed.items():
        choice("optimizer under `fixed`", name, labels)
        if "lr" in arguments:
            raise ValueError(f"fixed.{name}.lr: expected other arguments than lr, which is tuned for every contender")
    rates = {"elementwise_lr": settings.elementwise_lr, "lr_ratio": settings.lr_ratio, "fixed": settings.fixed}
    check_range(rates, settings.dtype)
    for field in ("sizes", "task_steps"):
        for name in getattr(settings, field):
            choice(f"task under `{field}`", name, {*TASKS, *settings.tasks})
    chosen = tuple(contender.name for contender in found)
    return settings.model_copy(update={"optimizers": chosen, "device": find_device(settings.device)})
