"""A model that torch.compile has compiled, forward and backward; the step itself is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.hosts.choices import Choice
from benchmarks.hosts.common import LR, Bits, Mode, bits, claim_same, network, train_plainly

__all__ = ["MODES"]

STEPS, MIDDLE, CLIP = 4, 2, 0.3
BACKEND = "aot_eager"
"""Traces both passes as the usual backend does, and needs no C++ compiler."""


class _Run:
    def __init__(self, choice: Choice, seed: int = 0, compiled: bool = True) -> None:
        self.choice, self.model = choice, network(seed)
        self.optimizer = choice.build(self.model, lr=LR)
        self.forward: Any = torch.compile(self.model, backend=BACKEND) if compiled else self.model

    def train(self, steps: range) -> _Run:
        """Some steps."""
        train_plainly(self.choice, self.optimizer, self.forward, steps, CLIP)
        return self

    def bits(self) -> Bits:
        """Where it is."""
        return bits(self.optimizer)


def _resumes(choice: Choice, folder: Path) -> None:
    """New objects, compiled anew, resume to the same bits; the model as it is ends there too."""
    torch.compiler.reset()
    whole = _Run(choice).train(range(MIDDLE))
    torch.save([whole.model.state_dict(), whole.optimizer.state_dict()], folder / "checkpoint.pt")
    end = whole.train(range(MIDDLE, STEPS)).bits()
    resumed = _Run(choice, seed=99)
    for part, state in zip((resumed.model, resumed.optimizer), torch.load(folder / "checkpoint.pt"), strict=True):
        part.load_state_dict(state)
    claim_same("the resumed run", resumed.train(range(MIDDLE, STEPS)).bits(), end)
    claim_same("a plain loop", _Run(choice, compiled=False).train(range(STEPS)).bits(), end)


MODES = (Mode("torch.compile", "of the model", (), _resumes, "double backward", costly=True),)
