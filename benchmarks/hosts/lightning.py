"""Lightning: it steps with a closure of its own (automatic), or leaves steps to the module (manual)."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.hosts.choices import Choice
from benchmarks.hosts.common import (
    LR,
    ROWS,
    Mode,
    bits,
    claim_same,
    installed,
    network,
    pairs,
    step,
    train_plainly,
)

__all__ = ["MODES"]

BATCHES, CLIP = 3, 0.3


def _module(choice: Choice, automatic: bool, seed: int) -> Any:
    """A LightningModule; its optimizer and the schedule of every step are made where Lightning asks for them."""

    class Module(installed("lightning").LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = automatic
            self.network = network(seed)

        def configure_optimizers(self) -> Any:
            optimizer = choice.build(self.network, lr=LR)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * BATCHES)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def training_step(self, batch: Any, index: int) -> Tensor | None:
            inputs, targets = batch

            def loss() -> Tensor:
                return (self.network(inputs) - targets).square().mean()

            if automatic:
                return loss()
            optimizer: Any = self.optimizers()
            step(
                choice,
                optimizer,
                loss,
                lambda: self.clip_gradients(optimizer, gradient_clip_val=CLIP, gradient_clip_algorithm="norm"),
                self.manual_backward,
            )
            self.lr_schedulers().step()
            return None

    return Module()


def _trainer(folder: Path, automatic: bool, epochs: int) -> Any:
    lightning = installed("lightning")
    keeps = installed("lightning.pytorch.callbacks").ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        gradient_clip_val=CLIP if automatic else None,
        callbacks=[keeps],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def _resumes(automatic: bool, choice: Choice, folder: Path) -> None:
    """A new module resumes from the checkpoint of the first of two epochs to the same bits, those of a plain loop."""
    ends = []
    for seed, checkpoint in ((0, None), (99, folder / "0" / "epoch=0.ckpt")):
        module = _module(choice, automatic, seed)
        trainer = _trainer(folder / str(seed), automatic, epochs=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of workers, and of a folder that is not empty
            trainer.fit(module, DataLoader(pairs(BATCHES), batch_size=ROWS), ckpt_path=checkpoint, weights_only=False)
        (optimizer,) = trainer.optimizers
        if trainer.global_step != 2 * BATCHES:
            raise AssertionError(f"the run ended at step {trainer.global_step} of {2 * BATCHES}")
        ends.append(bits(optimizer))
    claim_same("the resumed run", *ends)
    model = network()
    optimizer = choice.build(model, lr=LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * BATCHES)
    train_plainly(choice, optimizer, model, [*range(BATCHES)] * 2, CLIP, schedule)
    claim_same("a plain loop", bits(optimizer), ends[0])


MODES = (
    Mode("Lightning", "automatic", ("lightning",), partial(_resumes, True), "without a graph"),
    Mode("Lightning", "manual", ("lightning",), partial(_resumes, False)),
)
