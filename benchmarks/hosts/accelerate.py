"""Accelerate: a loop as its manual has it, with clipped gradients and a schedule."""

from __future__ import annotations

import gc
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.hosts.choices import Choice
from benchmarks.hosts.common import LR, Mode, bits, claim_same, installed, llama, step, texts
from nestlearn.optim import tables

__all__ = ["MODES", "Run", "forget"]

BATCHES, ROWS, CLIP = 4, 2, 0.1


class Run:
    """A loop; an epoch is four batches.

    Args:
        accumulation: batches of one step.
        seed: of the weights that it begins with.
    """

    def __init__(self, choice: Choice, accumulation: int = 1, seed: int = 0) -> None:
        self.choice, self.accumulation = choice, accumulation
        self.accelerator = installed("accelerate").Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
        model = llama(seed)
        optimizer = choice.build(model, lr=LR, elementwise=tables(model))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * BATCHES // accumulation)
        loader = DataLoader(texts(BATCHES * ROWS), batch_size=ROWS)
        self.model, self.optimizer, self.schedule, self.loader = self.accelerator.prepare(
            model, optimizer, schedule, loader
        )

    def train(self, epochs: int) -> None:
        """Some epochs."""
        for _ in range(epochs):
            for batch in self.loader:
                with self.accelerator.accumulate(self.model):
                    step(
                        self.choice,
                        self.optimizer,
                        lambda batch=batch: self.model(**batch).loss,
                        self.clip,
                        self.accelerator.backward,
                        closure=self.accumulation == 1,  # Accelerate calls none between two steps
                    )
                    self.schedule.step()

    def clip(self) -> None:
        """Clip what all batches of a step left behind."""
        if self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(self.model.parameters(), CLIP)


def _resumes(accumulation: int, choice: Choice, folder: Path) -> None:
    """The checkpoint of the first epoch, loaded twice into everything new, and into the old, trains to the same bits;
    a plain loop does too.
    """
    whole = Run(choice, accumulation)
    whole.train(1)
    whole.accelerator.save_state(str(folder))
    saved = bits(whole.optimizer)
    whole.train(1)
    end = bits(whole.optimizer)
    claim_same("a plain loop", _plain(choice, accumulation), end, settings=False)
    resumed = Run(choice, accumulation, seed=99)
    for _ in range(2):
        resumed.accelerator.load_state(str(folder))
        claim_same("what was loaded", bits(resumed.optimizer), saved)
    resumed.train(1)
    claim_same("the resumed run", bits(resumed.optimizer), end)
    whole.accelerator.load_state(str(folder))
    whole.train(1)
    claim_same("the run that went back", bits(whole.optimizer), end)


def _plain(choice: Choice, accumulation: int) -> Any:
    """Two epochs without Accelerate."""
    model: Any = llama()
    optimizer = choice.build(model, lr=LR, elementwise=tables(model))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * BATCHES // accumulation)
    batches = list(DataLoader(texts(BATCHES * ROWS), batch_size=ROWS))
    for first in [*range(0, BATCHES, accumulation)] * 2:

        def loss(first: int = first) -> Tensor:
            *before, last = (model(**batch).loss / accumulation for batch in batches[first : first + accumulation])
            for each in before:
                each.backward()
            return last

        step(choice, optimizer, loss, lambda: nn.utils.clip_grad_norm_(model.parameters(), CLIP))
        schedule.step()
    return bits(optimizer)


def forget() -> None:
    """Drop whatever an Accelerator or a Trainer keeps for the process: device, precision, accumulation.

    Trainer collects garbage after each training, which with all that hosts import takes longer than the training: what
    is there now is no longer looked at, until ``gc.unfreeze()``.
    """
    gc.collect()
    gc.freeze()
    if "accelerate" in sys.modules:
        state = installed("accelerate.state")
        # Without a public way, as in accelerate's own tests.
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()


MODES = (
    Mode("Accelerate", "", ("accelerate", "transformers"), partial(_resumes, 1)),
    Mode("Accelerate", "accumulating", ("accelerate", "transformers"), partial(_resumes, 2), "no closure was given"),
)
