"""The plan of the comparison: what is written down before anything runs, as ``plan.yaml`` has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from nestlearn.contenders import CONTENDERS, Contender, Variant, find_contender, rule_name
from nestlearn.rules import parse
from nestlearn.training import RunSpec
from nestlearn.training.settings import Settings, merge, read_settings

__all__ = ["Entrant", "Judged", "Listed", "Place", "Plan", "Rung", "Searched", "Values", "read_plan", "spec_of"]

Values = Mapping[str, Any]
"""A setting of everything that is searched: ``lr``, ``elementwise_lr``, ``warmup`` (a share of the steps), and those of
``retention``, ``nesterov`` and ``weight_decay`` that the contender has."""

OF_RUNS = ("elementwise_lr", "warmup")
"""What is searched of every contender beside the optimizer's own settings."""


class Listed(Settings):
    """A contender as the plan lists it: an optimizer of ``nestlearn compare`` or a rule."""

    name: str
    optimizer: str = ""
    rule: str = ""
    box: str = Field(default="average", description="the part of the rule whose retention and nesterov are searched")
    fixed: dict[str, Any] = Field(default={}, description="arguments that are not searched")
    parts: tuple[str, ...] = Field(default=(), description="parts of the rule that are each taken away alone")
    part_of: str = Field(default="", description="the contender of which this is what is left without a part")


class Place(Settings):
    """A task in one size, and how many steps the horizon is."""

    task: str
    steps: int = Field(ge=2)
    size: dict[str, Any] = Field(default={}, description="fields of the task")
    pair: bool = Field(default=False, description="whether the comparison that is primary is all that is judged here")
    counted: bool = Field(default=True, description="of an unseen task, whether it enters the mean over them")


class Rung(Settings):
    """One round of the halving: ``keep`` settings by each criterion run a part of the horizon with these seeds."""

    part: float = Field(gt=0, le=1)
    seeds: tuple[int, ...]
    keep: int = Field(ge=1)


class Searched(Settings):
    """How settings are searched, the same for every contender and task."""

    part: float = Field(gt=0, le=1, description="of the horizon, in a trial")
    seed: int
    trials: int = Field(ge=1)
    grow: int = Field(description="extra rounds of trials while the best value is at an edge")
    lr_points: int
    lr_ratio: float = Field(gt=1)
    elementwise_lrs: tuple[float, ...] = Field(min_length=1, description="with every learning rate of the grid")
    retention: float = Field(ge=0, lt=1, description="where its search begins")
    weight_decays: tuple[float, ...] = Field(description="those of AdamW; others divide by the ratio of the rates")
    warmups: tuple[float, ...] = Field(description="shares of the steps of a run")
    rungs: tuple[Rung, ...] = Field(min_length=1, description="the last one at the horizon")
    polish: tuple[float, ...] = Field(description="factors of the best rates that are tried again in the last rung")
    polishes: int = Field(ge=0, description="how many times, around the best of then")


class Judged(Settings):
    """How what was chosen is judged."""

    seeds: tuple[int, ...]
    beside: int = Field(
        ge=1, description="how many of the seeds the contenders run that are not of the primary comparison"
    )
    lengths: tuple[float, ...] = Field(description="schedules that may be tried, parts of the horizon; 1 among them")
    retune: tuple[float, ...] = Field(description="factors of the carried lr that the retuned reference tries")
    retune_seeds: tuple[int, ...]
    timing_block: int = Field(description="steps of a contender in a row when it is timed")
    timing_rounds: int


class Plan(Settings):
    """Everything that decides what is run and what is claimed."""

    primary: str
    against: str
    contenders: tuple[Listed, ...]
    searched: dict[str, Place]
    unseen: dict[str, Place]
    search: Searched
    judge: Judged

    def entrants(self) -> list[Entrant]:
        """The contenders, each rule followed by what is left of it without each of its parts.

        Raises:
            ValueError: a rule that is none, a part that it does not have, two of one name, or no reference.
        """
        found = [entrant for listed in self.contenders for entrant in _entrants(listed)]
        names = [entrant.name for entrant in found]
        for needed in (self.primary, self.against):
            if names.count(needed) != 1:
                raise ValueError(f"expected one contender called {needed!r}, got {names.count(needed)} in {names}")
        if len(set(names)) < len(names):
            raise ValueError(f"expected contenders with a name each, got {names}")
        return found

    def some(self, names: Sequence[str]) -> Plan:
        """The plan with these contenders alone, or with all for no name.

        Raises:
            ValueError: there is no contender of this name in the list.
        """
        known = {listed.name: listed for listed in self.contenders}
        for name in names:
            if name not in known:
                raise ValueError(f"expected names among {', '.join(known)}, got {name!r}")
        return self.model_copy(update={"contenders": tuple(known[name] for name in names or known)})

    @property
    def places(self) -> dict[str, Place]:
        """All tasks on which contenders are judged, those of the search first."""
        return {**self.searched, **self.unseen}


@dataclass(frozen=True)
class Entrant:
    """Who takes part.

    Attributes:
        name: in the tables.
        variant: what the library calls it.
        fixed: arguments that are not searched.
        part_of: whose part is missing; empty for a contender in its own right.
        box: of a rule, the part whose retention and nesterov are searched.
    """

    name: str
    variant: Variant
    fixed: tuple[tuple[str, Any], ...] = ()
    part_of: str = ""
    box: str = ""

    @property
    def contender(self) -> Contender:
        """As ``nestlearn compare`` knows it."""
        return find_contender(self.variant.contender)

    @property
    def takes(self) -> dict[str, str]:
        """The optimizer's own settings that are searched, each with the argument that it is."""
        if self.box:
            known = parse(self.variant.contender.partition("=")[2]).settings()
            paths = {name: f"{self.box}.{name}" for name in ("retention", "nesterov")}
            own = {name: path for name, path in paths.items() if path in known}
        else:
            arguments = {*self.contender.tuned, *(self.contender.takes() or {})}
            own = {name: name for name in ("retention", "nesterov") if name in arguments}
        found = {"lr": "lr", **own, "weight_decay": "weight_decay"}
        return {name: argument for name, argument in found.items() if argument not in dict(self.fixed)}


def _entrants(listed: Listed) -> list[Entrant]:
    if bool(listed.optimizer) == bool(listed.rule):
        raise ValueError(f"expected either an optimizer or a rule of {listed.name}, got {listed!r}")
    fixed = tuple(listed.fixed.items())
    if listed.optimizer:
        if listed.optimizer not in CONTENDERS:  # others are put on a model in other ways, with other grids
            raise ValueError(f"{listed.name}: expected one of {', '.join(CONTENDERS)}, got {listed.optimizer!r}")
        if listed.parts:
            raise ValueError(f"{listed.name} is no rule: list what is left of it as contenders with part_of")
        return [Entrant(listed.name, Variant(listed.optimizer), fixed, listed.part_of)]
    rule = parse(listed.rule)
    without = [(f"{listed.name}-{part}", rule.without(part), listed.name) for part in listed.parts]
    return [
        Entrant(name, Variant(rule_name(made, name)), fixed, part_of, listed.box)
        for name, made, part_of in [(listed.name, rule, listed.part_of), *without]
    ]


def read_plan(path: Path) -> Plan:
    """The plan in a file; SettingsError where it is not one."""
    plain = read_settings(path)
    return merge(Plan.model_validate(plain), {})


def spec_of(
    place: Place, entrant: Entrant, values: Values, seed: int, part: float = 1.0, *, test: bool = False
) -> RunSpec:
    """The run with these values over a part of the horizon, its schedule as long as itself.

    Args:
        test: whether the test split is looked at, at the end.
    """
    steps = max(2, round(place.steps * part))
    return RunSpec(
        task=place.task,
        variant=entrant.variant,
        settings=tuple((entrant.takes[name], value) for name, value in values.items() if name not in OF_RUNS),
        seed=seed,
        steps=steps,
        fixed=entrant.fixed,
        size=tuple(place.size.items()),
        elementwise_lr=values["elementwise_lr"],
        points=1,
        full=test,
        warmup=min(round(values["warmup"] * steps), steps - 1),
    )
