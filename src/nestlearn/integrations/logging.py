"""The numbers of `nestlearn.integrations.scalars`, sent every so many steps to whoever keeps them.

    with tensorboard("runs/mine") as tracker:
        log(optimizer, tracker, every=50)
        ...                                   # any loop: the optimizer's own hooks measure and send

Whoever takes ``(numbers, step)`` may be sent to: one of the three trackers here, ``print``, wandb's ``run.log`` of
your own, the ``log_metrics`` of a logger of Lightning. Nothing here is on by itself, and none of the three asks the
network: TensorBoard and trackio write files, wandb is told to stay offline (``wandb sync`` sends them later).
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from nestlearn.errors import MissingPackageError
from nestlearn.integrations.places import Copies, Place, Standing, copies, places, standing, unwrapped
from nestlearn.integrations.scalars import measured

__all__ = ["Log", "Send", "Tracker", "check_tracker", "log", "tensorboard", "trackio", "wandb"]

Send = Callable[[Mapping[str, float], int], object]
"""Takes named numbers, and after how many steps they were what they are."""

PACKAGES = {"tensorboard": "torch.utils.tensorboard", "trackio": "trackio", "wandb": "wandb"}
"""The modules that trackers import, by name."""


def log(
    optimizer: torch.optim.Optimizer,
    to: Send,
    *,
    every: int = 50,
    start: int = 0,
    spectrum: bool = True,
    memories: bool = False,
) -> "Log":
    """Measure an optimizer at every so many steps, and send what was found.

    Weights are copied before such a step, and what it changed is held beside them until it is measured: twice the
    weights, for that long. Other steps are counted, and nothing more; a step that the optimizer does not take, as under
    a ``GradScaler`` after an overflow, is none.

    Args:
        optimizer: any; those of Accelerate and Lightning are looked into.
        to: called with the numbers, name -> number, and the step.
        every: steps from one measurement to the next. Groups with a ``period`` change at multiples of it alone.
        start: how many steps were taken before.
        spectrum: False leaves out what is dear, see `nestlearn.integrations.scalars`.
        memories: measure also how much of the memories a step changes, for which they are copied as weights are.

    Returns:
        What ends it by ``remove()``.

    Raises:
        ValueError: ``every`` is no whole number from 1.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> handle = log(optimizer, lambda numbers, step: print(step, [*numbers]), every=2)
        >>> for _ in range(2):
        ...     weight.grad = torch.ones(2)
        ...     optimizer.step()
        2 ['size/1/element', 'update/1/element']
    """
    return Log(unwrapped(optimizer), to, every, start, spectrum, memories)


class Log:
    """A measurement under way, as ``log`` makes it.

    Attributes:
        step: steps taken, those before it included.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, to: Send, every: int, start: int, spectrum: bool, memories: bool
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every: expected a whole number of steps from 1, got {every!r}")
        self.step = start
        self._to, self._every, self._spectrum, self._memories = to, every, spectrum, memories
        self._before: Copies | None = None
        self._places: list[Place] = []
        self._known: Standing = []
        self._hooks = [
            optimizer.register_step_pre_hook(self._look),
            optimizer.register_step_post_hook(self._send),
        ]

    def remove(self) -> None:
        """Measure no more."""
        for hook in self._hooks:
            hook.remove()
        self._before = None

    def _look(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Before a step: copies, if it is one that is measured."""
        self._before = None  # of a step that failed
        if (self.step + 1) % self._every == 0:
            self._before = copies(optimizer, memories=self._memories, among=self._now(optimizer))

    def _send(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self.step += 1
        before, self._before = self._before, None
        if before is not None:
            self._to(measured(optimizer, self._now(optimizer), before, spectrum=self._spectrum), self.step)

    def _now(self, optimizer: torch.optim.Optimizer) -> list[Place]:
        """The places; they are looked up again where parameters or what is kept for them are others."""
        known = standing(optimizer)
        if known != self._known:
            self._places, self._known = places(optimizer), known
        return self._places


class Tracker:
    """Keeps numbers by step: call it with them; close it, or use it in ``with``.

    Args:
        send: keeps them.
        end: brings what is still under way to the disk.
    """

    def __init__(self, send: Send, end: Callable[[], object]) -> None:
        self._send, self._end = send, end

    def __call__(self, numbers: Mapping[str, float], step: int) -> None:
        self._send(numbers, step)

    def close(self) -> None:
        """Bring everything to the disk, and take nothing more. Of wandb a process of its own has done so by the end."""
        self._end()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tensorboard(folder: str | os.PathLike[str], *, start: int = 0) -> Tracker:
    """Event files in a folder, for ``tensorboard --logdir FOLDER``.

    Args:
        folder: is made where it is not there.
        start: of a run that goes on, after how many steps; TensorBoard shows nothing later of what was written before.

    Raises:
        MissingPackageError: tensorboard is not installed.
    """
    writer = _module("tensorboard").SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def send(numbers: Mapping[str, float], step: int) -> None:
        for name, number in numbers.items():
            writer.add_scalar(name, number, step)

    return Tracker(send, writer.close)


def trackio(project: str, name: str | None = None) -> Tracker:
    """A run in trackio's own folder on this machine, for ``trackio show --project PROJECT``.

    The folder is ``TRACKIO_DIR`` of the environment, or one in the cache of Hugging Face. What trackio prints goes to
    the standard error. A Space or server in ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` is passed over, and nobody
    is asked whose token lies here: for a run elsewhere give ``log`` the ``log`` of your own ``trackio.init``.

    Args:
        project: its name.
        name: of the run; one that is there is continued, and None makes one up.

    Raises:
        MissingPackageError: trackio is not installed.
    """
    module = _module("trackio")
    with _alone(), redirect_stdout(sys.stderr):
        run = module.init(project, name, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False)

    def end() -> None:
        with redirect_stdout(sys.stderr):
            run.finish()
            if module.context_vars.current_run.get() is run:
                module.context_vars.current_run.set(None)  # or it is finished again when Python ends

    return Tracker(lambda numbers, step: run.log(dict(numbers), step=step), end)


@contextmanager
def _alone() -> Iterator[None]:
    """A block in which trackio finds no place but this machine, and huggingface_hub refuses to ask anybody."""
    constants: Any = import_module("huggingface_hub.constants")
    hidden = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
    places_, offline = {name: os.environ.pop(name) for name in hidden if name in os.environ}, constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        os.environ |= places_


def wandb(project: str, name: str | None = None, *, folder: str | os.PathLike[str] = ".") -> Tracker:
    """A run of Weights & Biases that stays on this machine, in ``FOLDER/wandb/offline-run-*``; ``wandb sync`` sends it.

    Args:
        project: its name.
        name: of the run.
        folder: is made where it is not there.

    Raises:
        MissingPackageError: wandb is not installed.
    """
    module = _module("wandb")
    Path(folder).mkdir(parents=True, exist_ok=True)
    settings = module.Settings(
        silent=True, console="off", save_code=False, disable_git=True, x_disable_stats=True, x_disable_meta=True
    )
    run = module.init(
        project=project, name=name, dir=str(folder), mode="offline", reinit="create_new", settings=settings
    )
    return Tracker(lambda numbers, step: run.log(dict(numbers), step=step), run.finish)


def check_tracker(name: str) -> None:
    """Raise MissingPackageError unless the package of a tracker is there; "none" is none."""
    if name != "none":
        _module(name)


def _module(name: str) -> Any:
    try:
        return import_module(PACKAGES[name])
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'logging to {name} needs {error.name}, which is not installed: pip install "nestlearn[log]"',
            name=error.name,
        ) from error
