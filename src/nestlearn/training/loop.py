"""One training run, from a spec to a result, the same for every contender.

The learning rate falls linearly to zero over the run. A loss or a gradient that is not finite ends the run as
*diverged*: that is a result, not an error. Seconds count the training steps only, not the looks at the validation
split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from nestlearn.tasks import Task, make_task
from nestlearn.training.contenders import find_contender
from nestlearn.training.spec import RunResult, RunSpec

__all__ = ["Interrupted", "state_bytes", "train"]

Optimizers = list[torch.optim.Optimizer]

TRAIN_ROWS = 40  # rows of the training-loss series a run keeps
SURPRISE_ROWS = 20


class Interrupted(Exception):
    """The run was asked to stop before it was finished."""


@dataclass
class _Record:
    """The series of a run while it is under way."""

    train: list[list[float]] = field(default_factory=list)
    curve: list[list[float]] = field(default_factory=list)
    surprises: list[list[Any]] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    optimizer_seconds: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(self.step_seconds)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """The bytes of all distinct tensors in ``optimizer.state``, nested dicts and sequences included."""
    seen: dict[int, int] = {}

    def walk(value: Any) -> None:
        if isinstance(value, Tensor):
            seen[id(value)] = value.numel() * value.element_size()
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list | tuple):
            for item in value:
                walk(item)

    for state in optimizer.state.values():
        walk(state)
    return sum(seen.values())


def train(spec: RunSpec, should_stop: Callable[[], bool] = lambda: False) -> RunResult:
    """Train as ``spec`` says and return what came of it.

    Raises:
        Interrupted: ``should_stop`` became true; it is asked before every step.
    """
    task = make_task(spec.task, dict(spec.size), spec.device, spec.dtype)
    model, record = task.build(spec.seed), _Record()
    with _generator(spec.seed):
        optimizers = _make_optimizers(spec, task, model)
        reason = _train(spec, task, model, optimizers, record, should_stop)
        validation = {} if reason else task.evaluate(model, "validation")
    if not reason and not math.isfinite(validation["loss"]):
        reason = f"the validation loss at the end is {validation['loss']}"
    finished = not reason
    return RunResult(
        key=spec.key,
        task=spec.task,
        variant=spec.variant.name,
        settings=dict(spec.settings),
        seed=spec.seed,
        steps=spec.steps,
        full=spec.full,
        status="finished" if finished else "diverged",
        reason=reason,
        validation=validation if finished else {},
        test=task.evaluate(model, "test") if finished and spec.full else {},
        step_ms=1e3 * median(record.step_seconds or [0.0]),
        optimizer_ms=1e3 * median(record.optimizer_seconds or [0.0]),
        state_bytes=sum(map(state_bytes, optimizers)),
        parameters=sum(p.numel() for p in model.parameters()),
        train=record.train,
        curve=record.curve,
        surprises=record.surprises,
    )


@contextmanager
def _generator(seed: int) -> Iterator[None]:
    """Give the run its own global random stream and put the old one back."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _make_optimizers(spec: RunSpec, task: Task, model: nn.Module) -> Optimizers:
    settings = {**dict(spec.fixed), **dict(spec.settings)}
    lr = settings.pop("lr")
    make = find_contender(spec.variant.contender).make
    return make(model, lr, tables=task.tables(model), elementwise_lr=spec.elementwise_lr, **settings)


def _train(
    spec: RunSpec,
    task: Task,
    model: nn.Module,
    optimizers: Optimizers,
    record: _Record,
    should_stop: Callable[[], bool],
) -> str:
    """Take all steps; return why the run diverged, or an empty string."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    base = [{k: group[k] for k in ("lr", "elementwise_lr") if group.get(k) is not None} for group in groups]
    recent: list[float] = []
    every = max(1, spec.steps // TRAIN_ROWS)
    for step, batch in enumerate(islice(task.batches(spec.seed), spec.steps), start=1):
        if should_stop():
            raise Interrupted(spec.key)
        for group, rates in zip(groups, base, strict=True):
            group.update({name: rate * (1.0 - (step - 1) / spec.steps) for name, rate in rates.items()})
        try:
            loss = _step(task, model, optimizers, batch, record)
        except (FloatingPointError, torch.linalg.LinAlgError) as error:
            return f"step {step}: {error}"
        if not math.isfinite(loss):
            return f"step {step}: the training loss is {loss}"
        recent.append(loss)
        if step % every == 0 or step == spec.steps:
            record.train.append([step, record.seconds, sum(recent) / len(recent)])
            recent.clear()
        _look(spec, task, model, optimizers, step, record)
    return ""


def _step(task: Task, model: nn.Module, optimizers: Optimizers, batch: Any, record: _Record) -> float:
    """One timed training step; returns its loss."""
    start = time.perf_counter()
    model.zero_grad()
    loss = task.loss(model, batch)
    loss.backward()
    value = loss.item()  # also waits for the device
    before = time.perf_counter()
    if math.isfinite(value):
        for optimizer in optimizers:
            optimizer.step()
    if loss.is_cuda:
        torch.cuda.synchronize()
    end = time.perf_counter()
    record.step_seconds.append(end - start)
    record.optimizer_seconds.append(end - before)
    return value


def _look(spec: RunSpec, task: Task, model: nn.Module, optimizers: Optimizers, step: int, record: _Record) -> None:
    """Take the validation loss and the memories' surprises, now and then, in runs of full length."""
    if not spec.full:
        return
    if step % max(1, spec.steps // spec.points) == 0 or step == spec.steps:
        record.curve.append([step, record.seconds, task.evaluate(model, "validation")["loss"]])
    if step % max(1, spec.steps // SURPRISE_ROWS) == 0:
        surprise: dict[str, Tensor] = getattr(optimizers[0], "surprise", {})
        record.surprises.extend([step, name, float(value)] for name, value in surprise.items())
