"""Networks out of run folders: what ``nestlearn train`` left behind, ready for use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nestlearn.errors import SettingsError, as_settings_error
from nestlearn.foreign import foreign
from nestlearn.tasks import make_task
from nestlearn.training.checkpoint import CheckpointError, Checkpoints
from nestlearn.training.kept import kept_model, kept_tokenizer
from nestlearn.training.run_folder import RunFolder
from nestlearn.training.train_run import TrainRun
from nestlearn.training.train_settings import TrainSettings

__all__ = ["Trained", "load_trained"]


@dataclass(frozen=True)
class Trained:
    """A network, after how many steps of training, and the settings it was trained with."""

    model: nn.Module
    steps: int
    settings: TrainSettings
    tokenizer: Path | None = None
    """The vocabulary that is kept with it; None for bytes, or if there is none."""
    notes: tuple[str, ...] = ()
    """What the user should know of the folder, such as a checkpoint that was passed over."""


@as_settings_error()
def load_trained(path: Path, *, seed: int | None = None, device: str | None = None) -> Trained:
    """The network of the newest checkpoint in the run folder ``path``; the run may still be under way.

    A language model is made from what the folder keeps of it (`nestlearn.training.kept`), any other network by its
    task, which may need its data.

    Args:
        path: written by ``nestlearn train``.
        seed: which of its runs; None takes the first.
        device: where to put the network; None leaves it where it was trained.

    Raises:
        RunFolderError: it is no run folder, or what it keeps of the model is broken.
        SettingsError: it is that of a comparison, or has no run of this seed.
        CheckpointError: there is no checkpoint yet, or it does not fit.
    """
    folder = RunFolder.open(path)
    settings = TrainRun.settings_of(folder)
    seed = settings.seeds[0] if seed is None else seed
    if seed not in settings.seeds:
        raise SettingsError(f"expected one of the seeds {list(settings.seeds)} of {path}, got {seed}")
    content, notes = Checkpoints(folder.checkpoints, f"seed{seed}").newest()
    if content is None:
        raise CheckpointError(f"there is no checkpoint of seed{seed} in {folder.checkpoints}")
    with foreign(CheckpointError, f"the checkpoint in {folder.checkpoints} does not fit its task"):
        weights, steps = content["training"]["model"], int(content["training"]["steps_taken"])
        model = _network(path, weights, settings, seed, device or settings.device)
    return Trained(model.eval(), steps, settings, kept_tokenizer(path), tuple(notes))


def _network(path: Path, weights: Any, settings: TrainSettings, seed: int, device: str) -> nn.Module:
    kept = kept_model(path, weights, device, getattr(torch, settings.dtype))
    if kept is not None:
        return kept
    model = make_task(settings.task.name, settings.task.others(), device, settings.dtype).build(seed)
    model.load_state_dict(weights)
    return model
