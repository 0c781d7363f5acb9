"""A network that has learned already: the transformer, trained on the older speeches, goes on with the newest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from nestlearn.tasks import SpeechesTask
from nestlearn.tasks.data import speeches

__all__ = ["FineTuning"]

OLD, NEW = 0.7, 0.9
"""Shares of a split, which is in the order of time: what comes before is old, what comes after is new."""

RATE = 4e-3


@dataclass(frozen=True, kw_only=True)
class FineTuning(SpeechesTask):
    """The newest tenth of the speeches; every seed begins at the one network that ``pretraining`` steps of AdamW have
    made of the older ones, and differs in its batches.
    """

    name: ClassVar[str] = "fine-tuning"
    title: ClassVar[str] = "The newest speeches, after the older ones"

    pretraining: int = 600

    def text(self, split: str) -> Tensor:
        whole = speeches()[split]
        return whole[int(NEW * len(whole)) :]

    def build(self, seed: int) -> nn.Module:
        network = super().build(seed)
        network.load_state_dict(_pretrained(replace(self, validation_windows=1, test_windows=1)))
        return network


@dataclass(frozen=True, kw_only=True)
class _Older(SpeechesTask):
    def text(self, split: str) -> Tensor:
        whole = speeches()[split]
        return whole[: int(OLD * len(whole))]


@lru_cache
def _pretrained(task: FineTuning) -> Mapping[str, Tensor]:
    """The weights after the older speeches, made once in a process."""
    older = _Older(**{each.name: getattr(task, each.name) for each in fields(SpeechesTask)})
    network = older.build(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, task.pretraining)
    for _, batch in zip(range(task.pretraining), older.batches(0), strict=False):
        optimizer.zero_grad()
        older.loss(network, batch).backward()
        optimizer.step()
        schedule.step()
    return {name: value.clone() for name, value in network.state_dict().items()}
