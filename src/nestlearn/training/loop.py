"""One training run, from a spec to a result, the same for every contender, and able to stop and go on anywhere.

    with Training(spec) as training:
        while not training.done:
            training.step()
        result = training.result()

A loss or a gradient that is not finite ends the run as *diverged*: that is a result, not an error. Seconds count the
training steps only, not the looks at the validation split. ``state_dict`` holds everything on which the rest of the
run depends, so a run that was stopped, saved and loaded ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from nestlearn.errors import Interrupted
from nestlearn.foreign import printable
from nestlearn.memory.state import leaves
from nestlearn.optim import tables
from nestlearn.training.clock import StepClock
from nestlearn.training.random_stream import RandomStream
from nestlearn.training.ranks import ALONE, Ranks
from nestlearn.training.results import Point, RunResult
from nestlearn.training.schedule import make_schedule
from nestlearn.training.spec import RunSpec
from nestlearn.training.stepper import Stepper

__all__ = ["Interrupted", "Training", "state_bytes", "train"]

ROWS = 40  # points of the training loss that a run keeps
OVERFLOW = "without overflow"  # in torch's words for a Python number that a dtype cannot hold
LOOKS = 20  # and of each memory's surprise


class Training:
    """A run under way. As a context manager it keeps its random stream in place between steps, which makes them
    faster; outside of ``with`` every step swaps it in and out.

    Args:
        spec: what to do.
        rows, looks: about how many points of the training loss, and looks at the memories' surprises, to record.
        ranks: the processes that train it together; each makes such an object, and calls the same methods.

    Attributes:
        steps_taken: how many steps were taken so far.
        reason: why the run diverged; empty if it did not.
        train, curve, surprises: the series recorded so far, as in ``RunResult``.

    Raises:
        ValueError: task or optimizer refuse their settings.
    """

    def __init__(self, spec: RunSpec, *, rows: int = ROWS, looks: int = LOOKS, ranks: Ranks = ALONE) -> None:
        self.spec, self._ranks = spec, ranks
        self.task = spec.make_task()
        self.model = self.task.build(spec.seed)
        network = ranks.laid_out(self.model, spec.device)
        self._stream = RandomStream(spec.seed, spec.device)
        with self._stream:
            try:
                found = tables(self.model, output=self.task.ends(self.model))
                self.optimizers = spec.contender.make(self.model, tables=found, **spec.arguments)
            except TypeError as error:  # an argument that the class does not have, or not of this type
                said = printable(str(error), 1000)  # it may name what a file calls an argument
                raise ValueError(f"{spec.variant.name} on {spec.task}: {said}") from error
        ranks.check(self.optimizers)
        self.steps_taken, self._steps_read, self.reason = 0, 0, ""
        self.train: list[Point] = []
        self.curve: list[Point] = []
        self.surprises: list[list[Any]] = []
        self.clock = StepClock(spec.device)
        self._every = (
            max(1, spec.steps // rows),
            max(1, spec.steps // spec.points),
            max(1, spec.steps // looks),
        )
        self._stepper = Stepper(self.task, self.model, self.optimizers, self.clock, network, ranks)
        self._factor = make_schedule(spec.schedule, spec.warmup, spec.steps)
        self._base = [
            (optimizer, index, group["lr"])
            for optimizer in self.optimizers
            for index, group in enumerate(optimizer.param_groups)
        ]
        self._recent: list[float] = []  # losses since the last row
        self._unread: list[Tensor] = []  # those of them that are still on the device
        self._start_at(0)

    @property
    def done(self) -> bool:
        """Whether no step is left, because all were taken or the run diverged."""
        return self.steps_taken == self.spec.steps or bool(self.reason)

    def __enter__(self) -> Training:
        self._stream.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.__exit__(kind, error, trace)

    def step(self) -> None:
        """Take one step, and whatever looks at the run are due after it.

        Raises:
            RuntimeError: the run is done.
        """
        if self.done:
            raise RuntimeError(
                f"the run {self.spec.key} is done after {self.steps_taken} steps: {self.reason or 'all'}"
            )
        if not self._stream.inside:
            with self._stream:
                return self.step()
        batch = next(self._batches)
        factor = self._factor(self.steps_taken)
        for group, rate in self._rates:
            group["lr"] = rate * factor
        self.steps_taken = step = self.steps_taken + 1
        try:
            self._unread.append(self._stepper.take(batch))
        except (FloatingPointError, torch.linalg.LinAlgError) as error:
            return self._diverge(step, error)
        except RuntimeError as error:
            if OVERFLOW not in str(error):
                raise
            return self._diverge(step, error)  # a factor of an update is beyond what its dtype can hold
        rows, points, looks = self._every
        if step % rows == 0 or step % points == 0 or step % looks == 0 or step == self.spec.steps:
            self._record(step)
        return None

    def _diverge(self, step: int, error: Exception) -> None:
        self._unread.extend(self._stepper.last_loss)
        self.reason = self._read() or f"step {step}: {error}"

    def _record(self, step: int) -> None:
        """Add the rows that are due after this step, unless its losses show that the run diverged."""
        self.reason = self._read()
        if self.reason:
            return
        rows, points, looks = self._every
        last = step == self.spec.steps
        if step % rows == 0 or last:
            self.train.append(Point(step, self.clock.seconds, sum(self._recent) / len(self._recent)))
            self._recent.clear()
        if not self.spec.full:
            return
        if step % points == 0 or last:
            self.curve.append(Point(step, self.clock.seconds, self._evaluate("validation")["loss"]))
        if step % looks == 0:
            surprise = self._ranks.surprise(self.optimizers[0])
            self.surprises.extend([step, name, value] for name, value in surprise.items())

    def _evaluate(self, split: str) -> dict[str, float]:
        """What the model is on a split, with averaged weights where an optimizer keeps them."""
        averaging: list[Any] = [optimizer for optimizer in self.optimizers if hasattr(optimizer, "eval")]
        for optimizer in averaging:
            optimizer.eval()
        try:
            return self.task.evaluate(self.model, split)
        finally:
            for optimizer in averaging:
                optimizer.train()

    def _read(self) -> str:
        """Fetch losses and times from the device, all at once; returns why the run diverged, or an empty string."""
        self.clock.collect()
        if not self._unread:
            return ""
        losses: list[float] = self._ranks.mean(torch.stack([loss.reshape(()) for loss in self._unread])).tolist()
        first, self._steps_read = self._steps_read + 1, self._steps_read + len(losses)
        self._unread.clear()
        for step, loss in enumerate(losses, start=first):
            if not math.isfinite(loss):
                return f"step {step}: the training loss is {loss}"
        self._recent += losses
        return ""

    def result(self) -> RunResult:
        """What came of the run, when it is done.

        Raises:
            RuntimeError: steps are left.
        """
        if not self.done:
            raise RuntimeError(f"the run {self.spec.key} has taken {self.steps_taken} of {self.spec.steps} steps")
        spec, reason = self.spec, self.reason
        with self._stream:
            validation = {} if reason else self._evaluate("validation")
            reason = reason or _not_finite("validation", validation)
            test = self._evaluate("test") if spec.full and not reason else {}
            reason = reason or _not_finite("test", test)
        return RunResult(
            key=spec.key,
            task=spec.task,
            variant=spec.variant.name,
            settings=dict(spec.settings),
            seed=spec.seed,
            steps=spec.steps,
            full=spec.full,
            status="diverged" if reason else "finished",
            reason=reason,
            validation={} if reason else validation,
            test={} if reason else test,
            step_ms=self.clock.step_ms,
            optimizer_ms=self.clock.optimizer_ms,
            state_bytes=sum(map(state_bytes, self.optimizers)),
            parameters=sum(p.numel() for p in self.model.parameters()),
            train=self.train,
            curve=self.curve,
            surprises=self.surprises,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on: tensors, numbers, strings, lists and dicts, for ``torch.save``.

        Tensors are those of the run, not copies, as in torch. Of many ranks the first has it, as one process would.
        """
        self.reason = self.reason or self._read()
        state = {
            "run": self.spec.key,
            "steps_taken": self.steps_taken,
            "reason": self.reason,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "delayed": [list(gradients) for gradients in self._stepper.delayed],
            "random": self._stream.state(),
            "clock": self.clock.state_dict(),
            "recent": list(self._recent),
            "train": [list(point) for point in self.train],
            "curve": [list(point) for point in self.curve],
            "surprises": self.surprises,
        }
        return self._ranks.gathered(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave, in a new ``Training`` of the same spec, on any number of ranks: the
        first one has it, the others an ``outline``.

        Raises:
            ValueError: the state is that of another run.
        """
        if state.get("run") != self.spec.key:
            raise ValueError(f"expected the state of the run {self.spec.key}, got that of {state.get('run')}")
        ranks, own, parameters = self._ranks, self.model.state_dict(), list(self.model.parameters())
        self.model.load_state_dict(
            {name: ranks.handed_out(each, own.get(name)) for name, each in state["model"].items()}
        )
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(ranks.handed_out_to(optimizer, saved))
        self._stepper.delayed = deque(
            [
                None if gradient is None else ranks.handed_out(gradient, each).to(each.device)
                for gradient, each in zip(gradients, parameters, strict=True)
            ]
            for gradients in state["delayed"]
        )
        self._stream.load(ranks.handed_out(state["random"]))
        self.clock.load_state_dict(state["clock"])
        self.train, self.curve = ([Point(*row) for row in state[name]] for name in ("train", "curve"))
        self.surprises = list(state["surprises"])
        self._recent, self.reason = list(state["recent"]), state["reason"]
        self._unread.clear()
        self._start_at(state["steps_taken"])

    def _start_at(self, step: int) -> None:
        """Point at the coming batch and at the groups as they are now: loading an optimizer's state replaces them."""
        self.steps_taken = self._steps_read = step
        self._batches = self.task.batches(self.spec.seed, start=step)
        self._rates = [(optimizer.param_groups[index], rate) for optimizer, index, rate in self._base]


def _not_finite(split: str, figures: dict[str, float]) -> str:
    """Which figure of a split is not finite; empty if all are."""
    return next((f"the {split} {n} at the end is {v}" for n, v in figures.items() if not math.isfinite(v)), "")


def train(spec: RunSpec, should_stop: Callable[[], bool] = lambda: False) -> RunResult:
    """Train as ``spec`` says and return what came of it.

    Raises:
        Interrupted: ``should_stop`` became true; it is asked before every step.
    """
    with Training(spec) as training:
        while not training.done:
            if should_stop():
                raise Interrupted(spec.key)
            training.step()
        return training.result()


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """The bytes of all distinct tensors in ``optimizer.state``, nested dicts and sequences included."""
    distinct = {id(tensor): tensor for tensor in leaves(optimizer.state)}
    return sum(tensor.numel() * tensor.element_size() for tensor in distinct.values())
