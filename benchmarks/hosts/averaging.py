"""Averages of weights by torch.optim.swa_utils, equal ones (SWA) and exponential ones (EMA)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn

from benchmarks.hosts.choices import Choice
from benchmarks.hosts.common import LR, Mode, bits, claim_same, network, train_plainly

__all__ = ["MODES"]

STEPS, MIDDLE, CLIP, DECAY = 4, 2, 0.3, 0.75


class _Run:
    def __init__(self, choice: Choice, exponential: bool, seed: int = 0) -> None:
        self.choice, self.model = choice, network(seed)
        self.optimizer = choice.build(self.model, lr=LR)
        average = get_ema_multi_avg_fn(DECAY) if exponential else None
        self.averaged = AveragedModel(self.model, multi_avg_fn=average)
        self.schedule = SWALR(self.optimizer, swa_lr=LR / 2, anneal_epochs=STEPS)

    def train(self, steps: range) -> _Run:
        """Some steps, each followed by an average."""
        for index in steps:
            train_plainly(self.choice, self.optimizer, self.model, [index], CLIP, self.schedule)
            self.averaged.update_parameters(self.model)
        return self

    def state(self) -> dict[str, Any]:
        """What is saved."""
        return {name: getattr(self, name).state_dict() for name in ("model", "averaged", "optimizer", "schedule")}


def _resumes(exponential: bool, choice: Choice, folder: Path) -> None:
    """New objects resume to the same bits, weights and averages; the average is that of the weights of a plain loop."""
    whole = _Run(choice, exponential).train(range(MIDDLE))
    torch.save(whole.state(), folder / "checkpoint.pt")
    end = bits(whole.train(range(MIDDLE, STEPS)).optimizer)
    resumed = _Run(choice, exponential, seed=99)
    for name, state in torch.load(folder / "checkpoint.pt", weights_only=False).items():
        getattr(resumed, name).load_state_dict(state)
    claim_same("the resumed run", bits(resumed.train(range(MIDDLE, STEPS)).optimizer), end)
    model = network()
    optimizer = choice.build(model, lr=LR)
    schedule = SWALR(optimizer, swa_lr=LR / 2, anneal_epochs=STEPS)
    met = []
    for index in range(STEPS):
        train_plainly(choice, optimizer, model, [index], CLIP, schedule)
        met.append([each.detach().clone() for each in model.parameters()])
    claim_same("a plain loop", bits(optimizer), end)
    for index, (one, two) in enumerate(zip(whole.averaged.parameters(), resumed.averaged.parameters(), strict=True)):
        if not torch.equal(one, two):
            raise AssertionError("the resumed run: the averages differ")
        values = [weights[index] for weights in met]
        expected = values[0].clone()
        for count, value in enumerate(values[1:], 1):
            expected.lerp_(value, 1 - DECAY if exponential else 1 / (count + 1))
        torch.testing.assert_close(one, expected)


MODES = (
    Mode("AveragedModel", "SWA", (), partial(_resumes, False)),
    Mode("AveragedModel", "EMA", (), partial(_resumes, True)),
)
