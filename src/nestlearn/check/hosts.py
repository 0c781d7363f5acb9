"""Checks inside of other libraries that train, each where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nestlearn.check.compare import same
from nestlearn.check.outcome import claim
from nestlearn.check.problem import ROWS, batch, network
from nestlearn.check.subject import Subject
from nestlearn.check.training import Run, agree
from nestlearn.errors import NotApplicable

__all__ = ["CHECKS"]


def accelerate(subject: Subject) -> None:
    """Accelerate prepares and clips; a run that goes back to its save_state takes the same steps again."""
    package: Any = _installed("accelerate")
    if subject.closure:
        raise NotApplicable("its steps need a closure")
    accelerator = package.Accelerator(cpu=True)
    module = subject.network()
    model, optimizer, loader = accelerator.prepare(
        module, subject.build(module), DataLoader(_rows(subject.dtype), batch_size=ROWS)
    )

    def epoch() -> None:
        for each in loader:
            optimizer.zero_grad()
            accelerator.backward((model(each["inputs"]) - each["targets"]).square().mean())
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            torch.default_generator.manual_seed(0)
            optimizer.step()

    with tempfile.TemporaryDirectory() as folder:
        epoch()
        accelerator.save_state(folder)
        epoch()
        first = [each.detach().clone() for each in module.parameters()]
        accelerator.load_state(folder)
        epoch()
    claim(same(first, module.parameters()), "after load_state the same steps end in other weights")


def transformers_trainer(subject: Subject) -> None:
    """The Trainer of transformers resumes from its checkpoint, in new objects, to the same bits."""
    package: Any = _installed("transformers")
    _installed("accelerate")
    if subject.closure:
        raise NotApplicable("its steps need a closure, Trainer has none")

    def train(folder: str, **how: Any) -> list[Tensor]:
        arguments = package.TrainingArguments(
            folder,
            max_steps=4,
            save_steps=2,
            per_device_train_batch_size=ROWS,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            logging_steps=1000,
        )
        module = _Scored(subject.network(torch.float32))
        optimizer = subject.build(module.network)
        constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        trainer = package.Trainer(
            module, arguments, train_dataset=_rows(torch.float32), optimizers=(optimizer, constant)
        )
        trainer.train(**how)
        return [each.detach().clone() for each in module.network.parameters()]

    with tempfile.TemporaryDirectory() as folder:
        whole = train(folder)
        claim(not same(whole, subject.network(torch.float32).parameters()), "nothing was trained")
        resumed = train(folder, resume_from_checkpoint=str(Path(folder) / "checkpoint-2"))
    claim(same(whole, resumed), "the run that resumed ends in other weights")


class _Scored(nn.Module):
    """A network that computes its loss, as models of transformers do."""

    def __init__(self, inner: nn.Sequential) -> None:
        super().__init__()
        self.network = inner

    def forward(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        first: Any = self.network[0]
        inputs, targets = inputs.to(first.weight.dtype), targets.to(first.weight.dtype)
        return {"loss": (self.network(inputs) - targets).square().mean()}


def lightning(subject: Subject) -> None:
    """Lightning, which steps with a closure of its own, trains as a plain loop does."""
    package: Any = _installed("lightning")
    if subject.graph:
        raise NotApplicable("its steps need a closure that keeps the graph")
    module = subject.network()

    class Lit(package.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def training_step(self, rows: Any, index: int) -> Tensor:
            torch.default_generator.manual_seed(index)
            loss: Tensor = (module(rows["inputs"]) - rows["targets"]).square().mean()
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return subject.build(module)

    with tempfile.TemporaryDirectory() as folder:
        trainer = package.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(Lit(), DataLoader(_rows(subject.dtype), batch_size=ROWS))
    agree(subject, module.parameters(), Run(subject).steps().weights(), "weights of Lightning and of a loop")


def _installed(package: str) -> Any:
    if importlib.util.find_spec(package) is None:
        raise NotApplicable(f"{package} is not installed")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return importlib.import_module(package)


def _rows(dtype: torch.dtype) -> Any:
    """The rows of four batches."""
    module = network(dtype)
    pairs = [batch(index, module) for index in range(4)]
    return [{"inputs": x, "targets": y} for inputs, targets in pairs for x, y in zip(inputs, targets, strict=True)]


CHECKS = (accelerate, transformers_trainer, lightning)
