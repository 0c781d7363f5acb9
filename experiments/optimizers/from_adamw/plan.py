"""What is run: tasks, optimizers, and where the search for the rate of each begins."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn

from nestlearn import optim
from nestlearn.tasks import Task, make_task
from nestlearn.training.settings import Settings, merge, read_settings

__all__ = ["ADAMW", "Entrant", "Place", "Plan", "read_plan"]

ADAMW = "AdamW"


class Place(Settings):
    """A task in one size."""

    task: str
    steps: int = Field(ge=2)
    size: dict[str, Any] = Field(default={}, description="fields of the task")

    def make(self) -> Task:
        """The task."""
        return make_task(self.task, self.size, "cpu", "float32")


class Entrant(Settings):
    """An optimizer on the whole model, with its default settings and one of two ways to call it."""

    optimizer: str
    tables: bool = Field(
        default=False,
        description="whether it gets elementwise=nl.optim.tables(model), at AdamW's rate where its rule for single "
        "entries is Adam",
    )
    start: int = Field(default=0, description="the search begins at 2 ** start times AdamW's rate")

    @property
    def label(self) -> str:
        """In tables."""
        return f"{self.optimizer}, tables" if self.tables else self.optimizer

    @property
    def keeps_rate(self) -> bool:
        """Whether its tables learn at AdamW's rate: by Adam, unless its rule for single entries is its own."""
        if not self.tables:
            return False
        made: optim.Optimizer = self.make(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), 1.0, None)
        return made.rules(made.param_groups[0]).element == optim.Muon([torch.ones(1)]).element_rule(_MUON)

    def make(self, model: nn.Module, lr: float, elementwise_lr: float | None) -> Any:
        """The optimizer as a user would call it."""
        if self.optimizer == ADAMW:
            return torch.optim.AdamW(model.parameters(), lr=lr)
        kind = getattr(optim, self.optimizer)
        settings: dict[str, Any] = {}
        if inspect.signature(kind).parameters.get("model", _NONE).default is inspect.Parameter.empty:
            settings["model"] = model
        if self.tables:
            settings |= {"elementwise": optim.tables(model), "elementwise_lr": elementwise_lr}
        return kind(model.parameters(), lr=lr, **settings)


_NONE = inspect.Parameter("none", inspect.Parameter.KEYWORD_ONLY, default=None)
_MUON = optim.Muon([torch.ones(1)]).defaults


class Plan(Settings):
    """Everything that decides what is run."""

    seeds: tuple[int, ...]
    first: float = Field(gt=0, description="the rate at which AdamW's search begins, in steps of two")
    around: int = Field(ge=0, description="how many steps of two on either side of the best are run at least")
    widest: int = Field(ge=1, description="how many steps of two a search may go from where it begins")
    indifferent: float = Field(
        ge=0, description="of AdamW, the smallest rate counts whose validation loss is within this of the lowest"
    )
    most: float = Field(gt=0, description="a best rate of AdamW above this counts as this: it is nobody's")
    places: dict[str, Place]
    entrants: tuple[Entrant, ...]


def read_plan(path: Path) -> Plan:
    """The plan in a file; SettingsError where it is not one."""
    return merge(Plan.model_validate(read_settings(path)), {})
