"""ignite: an Engine with a step of one's own, and its Checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.hosts.choices import Choice
from benchmarks.hosts.common import LR, Mode, bits, claim_same, installed, loss_of, network, step, train_plainly

__all__ = ["MODES"]

BATCHES, CLIP = 3, 0.3


class _Run:
    def __init__(self, choice: Choice, folder: Path, seed: int = 0) -> None:
        engine, handlers = installed("ignite.engine"), installed("ignite.handlers")
        self.model = network(seed)
        self.optimizer = choice.build(self.model, lr=LR)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 4 * BATCHES)

        def update(_: Any, index: int) -> None:
            def clip() -> Tensor:
                return nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)

            step(choice, self.optimizer, lambda: loss_of(self.model, index), clip)

        self.trainer = engine.Engine(update)
        self.trainer.add_event_handler(engine.Events.ITERATION_COMPLETED, lambda: self.schedule.step())
        self.parts = {name: getattr(self, name) for name in ("trainer", "model", "optimizer", "schedule")}
        saver = handlers.DiskSaver(str(folder), create_dir=True, require_empty=False)
        keeps = handlers.Checkpoint(self.parts, saver, n_saved=None)
        self.trainer.add_event_handler(engine.Events.EPOCH_COMPLETED, keeps)


def _resumes(choice: Choice, folder: Path) -> None:
    """A new engine resumes from the checkpoint of the first of two epochs to the same bits, those of a plain loop."""
    whole = _Run(choice, folder / "whole")
    whole.trainer.run(range(BATCHES), max_epochs=2)
    end = bits(whole.optimizer)
    resumed = _Run(choice, folder / "resumed", seed=99)
    saved = torch.load(folder / "whole" / f"checkpoint_{BATCHES}.pt", weights_only=False)
    installed("ignite.handlers").Checkpoint.load_objects(to_load=resumed.parts, checkpoint=saved)
    resumed.trainer.run(range(BATCHES), max_epochs=2)
    claim_same("the resumed run", bits(resumed.optimizer), end)
    model = network()
    optimizer = choice.build(model, lr=LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * BATCHES)
    train_plainly(choice, optimizer, model, [*range(BATCHES)] * 2, CLIP, schedule)
    claim_same("a plain loop", bits(optimizer), end)


MODES = (Mode("ignite", "", ("ignite",), _resumes),)
