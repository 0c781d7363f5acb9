"""A run's losses, and what its optimizer did at each row, for TensorBoard, trackio or wandb: the setting ``log``.

And for ``nestlearn explore``: the setting ``record``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nestlearn.integrations.logging import Tracker, log, tensorboard, trackio, wandb
from nestlearn.integrations.recording import record
from nestlearn.training.loop import Training
from nestlearn.training.train_settings import TrainSettings

__all__ = ["record_of", "recorded", "tracked"]

PROJECT = "nestlearn"


@contextmanager
def tracked(training: Training, settings: TrainSettings, folder: Path, *, first: bool) -> Iterator[Callable[[], None]]:
    """A block in which what the main optimizer of a training does is measured at every row of the training loss, and
    sent where ``settings.log`` says; what it yields sends the losses that came since it was called last.

    Args:
        training: where it goes on from.
        folder: the run folder. TensorBoard and wandb write into it; trackio calls the run by its name.
        first: whether this process is the one that sends. The others measure, as all have to ask the same of a shard.
    """
    if settings.log == "none":
        yield lambda: None
        return
    spec, taken = training.spec, training.steps_taken
    name = f"{folder.name}-seed{spec.seed}"
    tracker = _opened(settings.log, folder, name, taken) if first else Tracker(lambda numbers, step: None, lambda: None)
    sent = {"train": len(training.train), "validation": len(training.curve)}

    def send() -> None:
        for split, points in (("train", training.train), ("validation", training.curve)):
            for point in points[sent[split] :]:
                if point.loss is not None:
                    tracker({f"loss/{split}": point.loss}, point.step)
            sent[split] = len(points)

    # Optimizers take no step before the first gradient of a late task arrives.
    start, every = max(taken, training.task.delay), max(1, spec.steps // settings.rows)
    with tracker:
        handle = log(training.optimizers[0], tracker, every=every, start=start)
        try:
            yield send
        finally:
            handle.remove()


@contextmanager
def recorded(training: Training, settings: TrainSettings, folder: Path) -> Iterator[None]:
    """A block in which the memories of a training's main optimizer are recorded, in ``record/seedN`` of the run folder,
    if ``settings.record`` gives time to it.

    Args:
        training: where it goes on from.
        folder: the run folder.
    """
    if not settings.record:
        yield
        return
    spec = training.spec
    with record(
        training.optimizers[0],
        record_of(folder, spec.seed),
        every=max(1, spec.steps // settings.rows),
        share=settings.record,
        start=max(training.steps_taken, training.task.delay),
        run=spec.key,
    ):
        yield


def record_of(folder: Path, seed: int) -> Path:
    """Where in a run folder the record of a seed lies."""
    return folder / "record" / f"seed{seed}"


def _opened(kind: str, folder: Path, name: str, taken: int) -> Tracker:
    match kind:
        case "tensorboard":
            return tensorboard(folder / "tensorboard" / name, start=taken)
        case "trackio":
            return trackio(PROJECT, name)
        case _:
            return wandb(PROJECT, name, folder=folder)
