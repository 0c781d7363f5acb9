"""Networks out of run folders: what ``nestlearn train`` left behind, ready for use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from nestlearn.errors import SettingsError, as_settings_error
from nestlearn.foreign import foreign
from nestlearn.tasks import make_task
from nestlearn.training.checkpoint import CheckpointError, Checkpoints
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
    notes: tuple[str, ...] = ()
    """What the user should know of the folder, such as a checkpoint that was passed over."""


@as_settings_error()
def load_trained(path: Path, *, seed: int | None = None, device: str | None = None) -> Trained:
    """The network of the newest checkpoint in the run folder ``path``; the run may still be under way.

    Args:
        path: written by ``nestlearn train``.
        seed: which of its runs; None takes the first.
        device: where to put the network; None leaves it where it was trained.

    Raises:
        RunFolderError: it is no run folder.
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
    task = make_task(settings.task.name, settings.task.others(), device or settings.device, settings.dtype)
    model = task.build(seed)
    with foreign(CheckpointError, f"the checkpoint in {folder.checkpoints} does not fit its task"):
        model.load_state_dict(content["training"]["model"])
        steps = int(content["training"]["steps_taken"])
    return Trained(model.eval(), steps, settings, tuple(notes))
