"""The settings of ``nestlearn train``: one optimizer on one task.

``task`` and ``optimizer`` are a name and whatever that task or optimizer takes besides, so that ``task.dim=64`` and
``optimizer.hidden=32`` need no list of their own here. ``resolve_training`` checks all of it and fills in what was left
open; the result is ``config.yaml`` of the run folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nestlearn.contenders import CONTENDERS, Variant, find_contender, rule_name
from nestlearn.contenders.by_class import TORCH
from nestlearn.contenders.contender import label_of
from nestlearn.errors import SettingsError, as_settings_error, did_you_mean
from nestlearn.foreign import printable
from nestlearn.tasks import make_task, task_type
from nestlearn.training.schedule import make_schedule
from nestlearn.training.settings import Settings, check_range, check_seeds, find_device, merge, parse_seeds
from nestlearn.training.spec import RunSpec

__all__ = [
    "IRRELEVANT",
    "OptimizerSettings",
    "TaskSettings",
    "TrainSettings",
    "changed_settings",
    "find_settings",
    "resolve_training",
    "shipped_settings",
]

ELEMENTWISE_LR = 1e-2
IRRELEVANT = {
    "checkpoint_every",
    "checkpoints",
    "log",
    "record",
    "seeds",
    "strategy",
}  # settings that change no run's result, but for rounding
SHIPPED = Path(__file__).parent / "configs"


class _Named(BaseModel):
    """A name, and settings that only the named thing knows."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str

    def others(self) -> dict[str, Any]:
        """The settings that are no fields of this class."""
        return dict(self.model_extra or {})


class TaskSettings(_Named):
    """A task and fields of it."""

    name: str = Field(default="digits", description="a task, or `module:function`; its fields stand beside it")


class OptimizerSettings(_Named):
    """An optimizer and arguments of it."""

    name: str = Field(
        default="DeepMomentum",
        description="a contender of `compare`, a class of `nestlearn.optim` or `torch.optim`, a rule such as "
        "`mine=chain(average(0.9), orthogonal())`, or `module:function`; its arguments stand beside it",
    )
    lr: float | None = Field(default=None, gt=0, description="learning rate; null is the optimizer's own")
    rule: str | dict[str, Any] | None = Field(
        default=None,
        exclude=True,  # it becomes a name
        description="instead of a name: a rule, as it is printed or as data; `name` is then what tables call it",
    )
    elementwise_lr: float | None = Field(
        default=None,
        gt=0,
        description="rate for vectors, embeddings and heads; null is 0.01, or lr for a class of torch",
    )

    @model_validator(mode="before")
    @classmethod
    def _by_rule(cls, given: Any) -> Any:
        """A rule as the name that says all of it."""
        if not isinstance(given, dict) or given.get("rule") is None:
            return given
        name = str(given.get("name", ""))
        label = "" if name in CONTENDERS else label_of(name)
        return {**given, "name": rule_name(given["rule"], label), "rule": None}


class TrainSettings(Settings):
    """All settings of a training run; ``docs/train.md`` explains them."""

    kind: Literal["train"] = "train"
    task: TaskSettings = Field(default=TaskSettings(), description="what is learnt: a name and fields of that task")
    optimizer: OptimizerSettings = Field(
        default=OptimizerSettings(), description="who learns: a name and its arguments"
    )
    steps: int = Field(default=400, ge=1, description="training steps")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="one run each, in turn: `0..2` or `[0, 1]`")
    schedule: Literal["linear", "constant", "cosine"] = Field(default="linear", description="of the learning rates")
    warmup: int = Field(default=0, ge=0, description="steps over which the learning rates rise first")
    points: int = Field(default=20, ge=1, description="looks at the validation split")
    rows: int = Field(default=200, ge=1, description="rows of the training loss, and of the memories' surprises")
    checkpoint_every: int = Field(
        default=100, ge=1, description="steps between checkpoints; there is one at the end anyway"
    )
    checkpoints: int = Field(
        default=2,
        ge=2,
        le=1000,
        description="how many are kept of each seed: the newest two, others over the whole run",
    )
    log: Literal["none", "tensorboard", "trackio", "wandb"] = Field(
        default="none",
        description="where losses, surprises, sizes and spectra go besides, at every row",
    )
    record: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the time that may go into recording the memories, see explore.md; 0 records "
        "nothing, 1 every row",
    )
    device: str = Field(default="cpu", description="`auto`, `cpu` or `cuda`")
    dtype: Literal["float32", "float64", "bfloat16"] = Field(
        default="float32", description="of the network and its inputs"
    )
    strategy: Literal["none", "ddp", "fsdp2", "hsdp"] = Field(
        default="none", description="how many ranks, started by torchrun, share the network; `none` is one process"
    )
    threads: int = Field(
        default=1, ge=1, le=1024, description="of torch on the CPU; with more of them sums may come out otherwise"
    )

    @field_validator("task", "optimizer", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @field_validator("seeds", mode="before")
    @classmethod
    def _spelt(cls, given: Any) -> Any:
        return parse_seeds(str(given)) if isinstance(given, int | str) else given

    @model_validator(mode="after")
    def _recorded_alone(self) -> TrainSettings:
        if self.record and self.strategy != "none":
            raise ValueError(f"record: one process alone can record, expected strategy none, got {self.strategy}")
        return self

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return check_seeds(seeds)

    def specs(self) -> list[RunSpec]:
        """The runs, one a seed, for settings that are resolved."""
        contender = find_contender(self.optimizer.name)
        fixed = {**contender.fixed, **self.optimizer.others()}
        first = RunSpec(
            task=self.task.name,
            variant=Variant(contender.name),
            settings=(("lr", self.optimizer.lr),),
            seed=self.seeds[0],
            steps=self.steps,
            fixed=tuple(fixed.items()),
            size=tuple(self.task.others().items()),
            elementwise_lr=self.optimizer.elementwise_lr or ELEMENTWISE_LR,
            points=self.points,
            device=self.device,
            dtype=self.dtype,
            schedule=self.schedule,
            warmup=self.warmup,
        )
        return [replace(first, seed=seed) for seed in self.seeds]


@as_settings_error()
def resolve_training(
    settings: TrainSettings, *changes: Mapping[str, Any] | str, notes: list[str] | None = None
) -> TrainSettings:
    """The settings with the changes laid over them as by ``merge``, and with everything filled in that was left open,
    checked as far as that goes without building a network.

    Two things are meant otherwise than they are written. A task alone that is a kind of the one before it, as the text
    is of the speeches, keeps that one's fields. A warm-up that would take more than half of the steps, which a later
    change asks for, is shortened to a tenth of them.

    Args:
        notes: takes what the user should know of the result.

    Raises:
        SettingsError: an unknown name or argument (with the nearest one), a value that does not fit.
    """
    layers = {"steps": -1, "warmup": -1}
    for number, change in enumerate(changes):
        settings = merge(settings, _with_fields(settings, change))
        layers |= {name: number for name in layers if name in _keys(change)}
    if layers["steps"] > layers["warmup"] and 2 * settings.warmup > settings.steps:
        short = settings.steps // 10
        if notes is not None:
            what = f"is shortened to {short}" if short else "is left out"
            notes.append(f"the warm-up of {settings.warmup} steps {what}, as the run has {settings.steps} steps")
        settings = settings.model_copy(update={"warmup": short})
    make_schedule(settings.schedule, settings.warmup, settings.steps)
    make_task(settings.task.name, settings.task.others(), "cpu", settings.dtype)
    optimizer = settings.optimizer
    contender = find_contender(optimizer.name)
    check_range({"optimizer": optimizer.model_dump()}, settings.dtype)
    one_rate = contender.name.startswith(TORCH)
    if one_rate and optimizer.elementwise_lr is not None:
        raise ValueError(
            f"optimizer.elementwise_lr: {contender.name} treats all parameters alike and has one rate, lr; "
            "contenders of `compare` and classes of nestlearn.optim have two"
        )
    known = contender.takes()
    for given in optimizer.others():
        if known is not None and given not in known:
            names = sorted({*known, "lr"} if one_rate else {*known, "lr", "elementwise_lr"})
            raise ValueError(
                f"unknown setting 'optimizer.{printable(given)}' of {contender.name}: "
                f"expected one of {', '.join(names)}."
                f"{did_you_mean(given, names)}"
            )
    filled = {
        "name": contender.name,
        "lr": optimizer.lr if optimizer.lr is not None else contender.lr,
        "elementwise_lr": None if one_rate else optimizer.elementwise_lr or ELEMENTWISE_LR,
    }
    return settings.model_copy(
        update={"optimizer": optimizer.model_copy(update=filled), "device": find_device(settings.device)}
    )


def _keys(change: Mapping[str, Any] | str) -> Iterable[str]:
    """The names of the settings that a change sets."""
    return [change.partition("=")[0].strip()] if isinstance(change, str) else change


def _with_fields(settings: TrainSettings, change: Mapping[str, Any] | str) -> Mapping[str, Any] | str:
    """The change; if it names a task alone that is a kind of the one in ``settings``, in the form that keeps fields."""
    name = change.get("task") if isinstance(change, Mapping) else change.partition("=")[2].strip()
    if "task" not in _keys(change) or not isinstance(name, str):
        return change
    if not issubclass(task_type(name), task_type(settings.task.name)):
        return change
    return {**({} if isinstance(change, str) else change), "task": {"name": name}}


def changed_settings(before: TrainSettings, now: TrainSettings) -> list[str]:
    """What a run begun with ``before`` cannot be continued with: "key: was x, now y" for every difference that would
    change its result. Seeds may be added.
    """
    found = _changes("", before.model_dump(exclude=IRRELEVANT), now.model_dump(exclude=IRRELEVANT))
    if not set(before.seeds) <= set(now.seeds):
        found.append(f"seeds: was {list(before.seeds)}, now {list(now.seeds)}")
    return found


def _changes(where: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    found = []
    for key in dict.fromkeys([*old, *new]):
        one, two = old.get(key), new.get(key)
        if isinstance(one, dict) and isinstance(two, dict):
            found += _changes(f"{where}{key}.", one, two)
        elif one != two:
            found.append(f"{where}{key}: was {one}, now {two}")
    return found


def shipped_settings() -> dict[str, Path]:
    """The files with settings that come with the package: ``--config hope`` means ``configs/hope.yaml``."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"), key=lambda path: path.stem)}


def find_settings(given: Path) -> Path:
    """The file that ``--config`` means: one of the user's if there is such a file, else one of ``shipped_settings``.

    Raises:
        SettingsError: there is neither; the message lists the shipped names.
    """
    shipped = shipped_settings()
    if given.exists() or str(given) not in shipped:
        if not given.exists() and given.suffix == "" and given.parent == Path():
            raise SettingsError(
                f"cannot read the settings {given}: expected a YAML file, or one of the shipped settings "
                f"{', '.join(shipped)}.{did_you_mean(given, shipped)}"
            )
        return given
    return shipped[str(given)]
