"""`nestlearn.record` where somebody else owns the loop: every step is looked at, and the weights are what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from needed import needs
from torch import Tensor, nn
from torch.utils.data import DataLoader

import nestlearn as nl
from benchmarks.hosts.common import ROWS, network, pairs
from nestlearn.explore import Shelf

STEPS = 4

Recorded = Callable[[torch.optim.Optimizer], object]


def built(model: nn.Module) -> torch.optim.Optimizer:
    return nl.optim.DeepMomentum(model.parameters(), lr=0.02, hidden=4)


def by_trainer(model: nn.Module, folder: Path, recorded: Recorded) -> None:
    (transformers,) = needs("transformers")

    class Judged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": (self.network(inputs) - labels).square().mean()}

    rows = [{"inputs": inputs, "labels": targets} for inputs, targets in pairs()]
    said = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=STEPS, per_device_train_batch_size=ROWS, seed=1, **said
    )
    optimizer = built(model)
    recorded(optimizer)
    transformers.Trainer(Judged(), arguments, train_dataset=rows, optimizers=(optimizer, None)).train()


def by_lightning(model: nn.Module, folder: Path, recorded: Recorded) -> None:
    (lightning,) = needs("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def configure_optimizers(self) -> torch.optim.Optimizer:
            optimizer = built(self.network)
            recorded(optimizer)
            return optimizer

        def training_step(self, batch: Any, index: int) -> Tensor:
            inputs, targets = batch
            return (self.network(inputs) - targets).square().mean()

    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_steps=STEPS, default_root_dir=folder, enable_model_summary=False, **silent
    )
    trainer.fit(Module(), DataLoader(pairs(), ROWS))


def by_accelerate(model: nn.Module, folder: Path, recorded: Recorded) -> None:
    (accelerate,) = needs("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    prepared, optimizer, batches = accelerator.prepare(model, built(model), DataLoader(pairs(STEPS), ROWS))
    recorded(optimizer)
    for inputs, targets in batches:
        accelerator.backward((prepared(inputs) - targets).square().mean())
        optimizer.step()
        optimizer.zero_grad()


# What hosts and their libraries deprecate of their own is theirs to mend.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("host", [by_trainer, by_lightning, by_accelerate])
def test_every_step_of_a_host_is_recorded_and_ends_in_the_same_bits(host: Any, tmp_path: Path) -> None:
    recorders: list[Any] = []
    record = tmp_path / "record"
    watched, alone = network(), network()
    host(watched, tmp_path / "one", lambda optimizer: recorders.append(nl.record(optimizer, record, every=1, share=1)))
    recorders[0].close()
    host(alone, tmp_path / "two", lambda optimizer: None)
    for one, two in zip(watched.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    (run,) = Shelf([record]).refresh()
    told = run.to_dict()
    assert (told["latest"], told["frozen"]) == (STEPS, [1]) and told["lanes"] > 4
