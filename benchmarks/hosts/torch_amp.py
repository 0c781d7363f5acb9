"""torch's GradScaler: a step whose gradients overflow is left out, the others are those without a scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.hosts.choices import Choice
from benchmarks.hosts.common import LR, Mode, bits, claim_same, loss_of, network, train_plainly

__all__ = ["MODES"]

STEPS, MIDDLE, BROKEN, CLIP = 6, 3, 1, 0.3


class _Run:
    def __init__(self, choice: Choice, seed: int = 0) -> None:
        self.choice, self.model = choice, network(seed)
        self.optimizer = choice.build(self.model, lr=LR)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=2)

    def train(self, steps: range) -> _Run:
        """Some steps; the gradients of one of them are infinite."""
        for index in steps:
            scale = float("inf") if index == BROKEN else 1.0
            self.scaler.scale(loss_of(self.model, index) * scale).backward(retain_graph=self.choice.closure)
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
        return self

    def state(self) -> dict[str, Any]:
        """What is saved."""
        parts = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        return {name: part.state_dict() for name, part in parts.items()}


def _resumes(choice: Choice, folder: Path) -> None:
    whole = _Run(choice).train(range(MIDDLE))
    torch.save(whole.state(), folder / "checkpoint.pt")
    end = bits(whole.train(range(MIDDLE, STEPS)).optimizer)
    resumed = _Run(choice, seed=99)
    for name, state in torch.load(folder / "checkpoint.pt").items():
        getattr(resumed, name).load_state_dict(state)
    claim_same("the resumed run", bits(resumed.train(range(MIDDLE, STEPS)).optimizer), end)
    model = network()
    optimizer = choice.build(model, lr=LR)
    train_plainly(choice, optimizer, model, [index for index in range(STEPS) if index != BROKEN], CLIP)
    claim_same("a plain loop without the broken step", bits(optimizer), end)


MODES = (Mode("GradScaler", "", (), _resumes, "no closure was given"),)
