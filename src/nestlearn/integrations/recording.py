"""Record what the memories of an optimizer do in any training loop.

    with nl.record(optimizer, "runs/mine") as recorder:
        for batch in batches:                     # any loop: plain, Trainer's, Lightning's
            loss = model(batch); loss.backward()
            recorder.loss(loss)                   # optional
            optimizer.step(); optimizer.zero_grad()

The optimizer's own hooks look at every so many steps, as `nestlearn.integrations.logging` does, and write what they
find to files; nothing listens, and nobody who looks at the files is waited for. The files are described in
`nestlearn.integrations.record_folder`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any
from warnings import warn

import torch
from torch import Tensor

from nestlearn.descriptions.describe import describe
from nestlearn.errors import RunFolderError
from nestlearn.integrations.frozen import Frozen
from nestlearn.integrations.places import MATRIX, Copies, Place, Standing, copies, places, standing, unwrapped
from nestlearn.integrations.record_folder import RecordFolder
from nestlearn.integrations.scalars import measured
from nestlearn.integrations.switches import Switch, switches

__all__ = ["Recorder", "record"]

SPLITS = ("train", "validation")

LOOKING, FREEZING = "looking", "freezing"
PARTS = {LOOKING: 0.75, FREEZING: 0.25}
"""What of its share of the time the recorder may take for what."""


def record(
    optimizer: torch.optim.Optimizer,
    folder: str | os.PathLike[str],
    *,
    every: int = 10,
    freeze: int = 20,
    share: float = 0.01,
    start: int = 0,
    run: str | None = None,
    most: int = 1 << 26,
) -> Recorder:
    """Record in a folder what an optimizer's memories do, for ``nestlearn explore FOLDER``.

    Weights and memories are copied before a step that is looked at, and what the step changed is measured after it,
    and written as one line. Other steps are counted, and nothing more. Random numbers and results stay what they are.

    Args:
        optimizer: any; those of Accelerate and Lightning are looked into.
        folder: is made where it is not there; a record in it goes on after ``start`` steps.
        every: steps from one look to the next, at least.
        freeze: looks from one frozen step to the next; at these a few parameters of every role are shown in full. 0
            freezes none but those that ``Recorder.freeze`` asks for.
        share: of the time of the whole loop, what looking may take, a quarter of it for freezing: while it has taken
            more, looks and frozen steps are left out, but for the first of each. 1 leaves none out.
        start: how many steps were taken before.
        run: what the run is called; by default as the folder.
        most: bytes of the file that grows with the steps; where it has them, every second of its steps is left out.

    Returns:
        What ends it by ``close()`` or as a ``with`` block, and takes losses.

    Raises:
        ValueError: ``every``, ``freeze``, ``share`` or ``most`` is out of its range.
        RunFolderError: another process records there, or the folder cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp()) / "mine"
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> with record(optimizer, folder, every=1, share=1) as recorder:
        ...     for _ in range(3):
        ...         weight.grad = weight.detach().clone()
        ...         recorder.loss(weight.detach().square().sum())
        ...         optimizer.step()
        >>> sorted(path.name for path in folder.iterdir())
        ['frozen', 'metrics.jsonl', 'record.json', 'writes.jsonl']
    """
    for name, number, least in (("every", every, 1), ("freeze", freeze, 0), ("start", start, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ValueError(f"{name}: expected a whole number from {least}, got {number!r}")
    if not 0 < share <= 1:
        raise ValueError(f"share: expected a number above 0 and up to 1, got {share!r}")
    inner, path = unwrapped(optimizer), Path(folder)
    about = {
        "optimizer": type(inner).__name__,
        "started": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}",
        "systems": [describe(inner).to_dict()],
    }
    kept = RecordFolder(path, run or path.resolve().name, about, start=start, most=most)
    return Recorder(inner, kept, every=every, freeze=freeze, share=share, start=start)


class Recorder:
    """A recording under way, as ``record`` makes it.

    Attributes:
        step: steps taken, those before it included.
        spent: seconds that looks and frozen steps have taken of the loop.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        folder: RecordFolder,
        *,
        every: int,
        freeze: int,
        share: float,
        start: int,
    ) -> None:
        self.step, self._spent, self._latest = start, {LOOKING: 0.0, FREEZING: 0.0}, {LOOKING: 0.0, FREEZING: 0.0}
        self.folder = folder
        self._every, self._freeze, self._share = every, freeze, share
        self._began: float | None = None
        self._since, self._wanted = freeze, False  # the first look is frozen
        self._losses: dict[str, Tensor | float] = {}
        self._before: Copies | None = None
        self._frozen: Frozen | None = None
        self._places: list[Place] = []
        self._known: Standing = []
        self._lanes: list[dict[str, Any]] = []
        self._hooks = [
            optimizer.register_step_pre_hook(self._look),
            optimizer.register_step_post_hook(self._write),
        ]

    def loss(self, loss: Tensor | float, split: str = "train") -> None:
        """The loss of the step to come, or the validation loss after the latest step.

        The training loss may be told at every step: it is held as it is, and read from its device at the steps that are
        looked at. A validation loss is written at once.

        Raises:
            ValueError: the split is neither "train" nor "validation", or the loss is not one number.
        """
        if split not in SPLITS:
            raise ValueError(f"split: expected 'train' or 'validation', got {split!r}")
        if isinstance(loss, Tensor) and loss.numel() != 1:
            raise ValueError(f"loss: expected one number, got a tensor of the shape {list(loss.shape)}")
        self._losses[split] = loss.detach() if isinstance(loss, Tensor) else float(loss)
        if split == "validation":
            self._guarded(lambda: self._tell(self._seconds()))

    def freeze(self) -> None:
        """Look at the step to come, and freeze it, whatever is due."""
        self._wanted = True

    def close(self) -> None:
        """Record no more, and let go of the folder. Twice is once."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._forget()
        self.folder.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _forget(self) -> None:
        if self._frozen is not None:
            self._frozen.forget()
        self._before = self._frozen = None

    def _seconds(self) -> float:
        """Since the first step."""
        return 0.0 if self._began is None else perf_counter() - self._began

    @property
    def spent(self) -> float:
        return sum(self._spent.values())

    @property
    def _due(self) -> bool:
        """Whether the step to come is looked at."""
        if self._wanted:
            return True
        return (self.step + 1) % (self._every * self.folder.thinned) == 0 and self._affords(LOOKING)

    def _affords(self, what: str) -> bool:
        """Whether one more, as dear as the latest, stays within its part of the time; the first one does."""
        due = self._spent[what] + self._latest[what]
        return self._share == 1 or due <= self._share * PARTS[what] * self._seconds()

    def _look(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Before a step: copies, if it is one that is looked at."""
        begun = perf_counter()
        if self._began is None:
            self._began = begun
        self._forget()  # what a step that failed has left
        if not self._due:
            return
        chosen = self._now(optimizer)
        self._before = copies(optimizer, memories=True, among=chosen)
        looked = perf_counter()
        self._latest[LOOKING] = 0.0
        self._add(LOOKING, looked - begun)
        self._since += 1
        if self._wanted or (self._freeze and self._since >= self._freeze and self._affords(FREEZING)):
            self._frozen, self._since = Frozen(optimizer, shown(optimizer, chosen)), 0
            self._latest[FREEZING] = 0.0
            self._add(FREEZING, perf_counter() - looked)

    def _write(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """After a step: what it changed, if it is one that is looked at."""
        self.step += 1
        before, frozen = self._before, self._frozen
        if before is not None:
            self._guarded(lambda: self._keep(optimizer, before, frozen))
        self._forget()

    def _guarded(self, write: Callable[[], None]) -> None:
        """Write, as long as that can be done: what is trained must not end because of it."""
        if not self._hooks:
            return
        try:
            write()
        except (OSError, RunFolderError) as error:
            self.close()
            warn(f"no more is recorded in {self.folder.path}: {error}", RuntimeWarning, stacklevel=3)

    @torch.no_grad()
    def _keep(self, optimizer: torch.optim.Optimizer, before: Copies, frozen: Frozen | None) -> None:
        begun, seconds = perf_counter(), self._seconds()
        among = self._now(optimizer)
        numbers = measured(optimizer, among, before, spectrum=False)
        names = [f"{lane['level']}/{lane['name']}" for lane in self._lanes]
        surprise, update = ([numbers.get(f"{what}/{name}") for name in names] for what in ("surprise", "update"))
        self.folder.row(self.step, seconds, self._lanes, surprise, update)
        self._tell(seconds)
        looked = perf_counter()
        self._add(LOOKING, looked - begun)
        if frozen is not None:
            self.folder.freeze(self.step, {"seconds": round(seconds, 4), "parameters": frozen.seen(optimizer)})
            self._add(FREEZING, perf_counter() - looked)
        self._wanted = False

    def _add(self, what: str, seconds: float) -> None:
        self._spent[what] += seconds
        self._latest[what] += seconds

    def _tell(self, seconds: float) -> None:
        """Write the losses that were told."""
        for split, loss in self._losses.items():
            number = float(loss)
            self.folder.loss(self.step, seconds, split, number)
        self._losses.clear()

    def _now(self, optimizer: torch.optim.Optimizer) -> list[Place]:
        """The places, with their roles in the names of their memories; looked up again where they are others."""
        known = standing(optimizer)
        if known != self._known:
            roles = {id(parameter): role for parameter, _, role in named(optimizer)}
            found = places(optimizer)
            self._places = [replace(each, memory=f"{each.memory}/{roles[id(each.parameter)]}") for each in found]
            self._lanes, self._known = list(_lanes(self._places, switches(optimizer))), known
        return self._places


def _lanes(among: list[Place], off: Mapping[str, Switch]) -> Iterator[dict[str, Any]]:
    """What is to know of each lane, in the order of the places: slowest level first."""
    found: dict[tuple[int, str], set[int]] = {}
    periods: dict[tuple[int, str], int] = {}
    for place in among:
        key = place.level, place.memory
        found.setdefault(key, set()).add(id(place.parameter))
        periods[key] = max(periods.get(key, 1), place.period)
    for (level, name), parameters in found.items():
        memory, _, role = name.partition("/")
        switch = off.get(memory)
        yield {
            "name": name,
            "level": level,
            "memory": memory,
            "role": role,
            "period": periods[level, name],
            "parameters": len(parameters),
            "part": None if switch is None else switch.part,
            "along": [] if switch is None else list(switch.along),
        }


def named(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, str, str]]:
    """Every parameter, its name, and its role: the name without the numbers of repeated blocks, or else the shape."""
    for group in optimizer.param_groups:
        names = group.get("param_names") or [""] * len(group["params"])
        for parameter, name in zip(group["params"], names, strict=True):
            shape = "×".join(map(str, parameter.shape)) or "number"
            yield parameter, name or shape, re.sub(r"\d+", "*", name) or shape


def shown(optimizer: torch.optim.Optimizer, among: list[Place]) -> list[tuple[Tensor, str, str]]:
    """The first parameter of each role that learns, matrices before the rest: what a frozen step shows."""
    matrices = {id(place.parameter) for place in among if place.memory.startswith(f"{MATRIX}/")}
    firsts: dict[str, tuple[Tensor, str, str]] = {}
    for each in named(optimizer):
        if each[0].requires_grad and each[0].numel():
            firsts.setdefault(each[2], each)
    return sorted(firsts.values(), key=lambda each: id(each[0]) not in matrices)
