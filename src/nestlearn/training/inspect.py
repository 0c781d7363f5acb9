"""A dry run: which memories a training would have, how often they are written and at which price, before it starts.

Model and optimizer are built on the meta device, where tensors have shapes and no memory, and described; the FLOPs of a
step are counted by taking one there, as the device of the training would take it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nestlearn.descriptions import NestedSystem, describe
from nestlearn.device import meta_stands_for
from nestlearn.imported import imported
from nestlearn.optim import Optimizer, tables
from nestlearn.optim.paths import paths
from nestlearn.tasks import Task
from nestlearn.training.inspect_ranks import RankLoad, loads, works
from nestlearn.training.train_settings import TrainSettings

__all__ = ["Inspection", "inspect_training"]

MOST_STEPS = 20
"""Where memories are slower than this, FLOPs are those of the first steps."""


@dataclass(frozen=True)
class Inspection:
    """What a dry run found.

    Attributes:
        system: levels and memories of optimizer and model.
        state_bytes: of the optimizer's state.
        adamw_bytes: of AdamW's for the same parameters.
        backward_flops: matrix products of the forward and backward pass of one batch; None if it cannot run on meta.
        step_flops: matrix products of the optimizer's step; None if it cannot run on meta.
        steps: over how many steps both are means: until the slowest memory has been written.
        unknown: why a number is None.
        paths: which path writes which parameters, of optimizers of ours.
        ranks: what each of many ranks would do in a step, if that was asked for and can be known.
    """

    system: NestedSystem
    state_bytes: int
    adamw_bytes: int
    backward_flops: float | None
    step_flops: float | None
    steps: int
    unknown: tuple[str, ...]
    paths: tuple[str, ...] = ()
    ranks: tuple[RankLoad, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        ranks = [vars(load) for load in self.ranks]
        lists = {"unknown": list(self.unknown), "paths": list(self.paths), "ranks": ranks}
        return {**vars(self), **lists, "system": self.system.to_dict()}


def inspect_training(settings: TrainSettings, model: str | None = None, ranks: int | None = None) -> Inspection:
    """Describe what training with these settings would be, on the meta device.

    Args:
        settings: resolved settings of ``nestlearn train``.
        model: ``module:function`` of a function that returns the module, instead of the task's network.
        ranks: also say what each of so many ranks would do, with the model sharded by rows (FSDP2).

    Raises:
        ValueError, TypeError: the model or the optimizer cannot be built; the message says why.
    """
    spec = replace(settings.specs()[0], device="meta")
    loss: Callable[[], Tensor] | None = None
    if model is None:
        task = spec.make_task()
        # A task of one's own makes its data along with its network, and data on meta would be of no use to it.
        with torch.device("cpu" if ":" in spec.task else "meta"):
            network = task.build(spec.seed)
        ends, loss = task.ends(network), partial(_loss, task, network)
    else:
        network = _own_model(model).to(getattr(torch, spec.dtype))
        ends = []
    optimizers = spec.contender.make(network, tables=tables(network, output=ends), **spec.arguments)
    system = describe(*optimizers, network)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    adamw = describe(torch.optim.AdamW(trained)).state_bytes
    with meta_stands_for(settings.device):
        ours = [optimizer for optimizer in optimizers if isinstance(optimizer, Optimizer)]
        written = tuple(line for optimizer in ours for line in paths(optimizer))
        backward, step, steps, unknown = _flops(network, optimizers, loss, _steps(system))
        shares: tuple[RankLoad, ...] = ()
        if ranks is not None:
            try:
                shares = _shares(network, optimizers, None if backward is None else loss, ranks, steps)
            except (RuntimeError, TypeError) as error:
                unknown += (f"what ranks do: {_reason(error)}",)
    return Inspection(system, system.state_bytes, adamw, backward, step, steps, unknown, written, shares)


def _own_model(name: str) -> nn.Module:
    """What the function ``module:function`` returns on the meta device."""
    build = imported(name, "model")
    with torch.device("meta"):
        made = build()
    if not isinstance(made, nn.Module):
        raise ValueError(f"expected {name} to return a torch.nn.Module, got {type(made).__name__}")
    real = [parameter_name for parameter_name, parameter in made.named_parameters() if parameter.device.type != "meta"]
    if real:
        raise ValueError(
            f"{name} puts {real[0]!r} on a device of its own choice; leave devices out, so that the model can be "
            "inspected without memory"
        )
    return made


def _loss(task: Task, network: nn.Module) -> Tensor:
    """One forward pass on the first batch."""
    return task.loss(network, next(task.batches(0)))


def _steps(system: NestedSystem) -> int:
    """How many steps it takes until every memory has been written."""
    slowest = max(memory.period for part in system.everything for memory in part.memories if memory.unit == "step")
    return min(slowest, MOST_STEPS)


def _flops(
    network: nn.Module, optimizers: list[torch.optim.Optimizer], loss: Callable[[], Tensor] | None, steps: int
) -> tuple[float | None, float | None, int, tuple[str, ...]]:
    """Mean FLOPs of forward and backward pass and of the optimizer's step, over how many, and what is not known."""
    unknown = [] if loss else ["forward and backward pass: a model alone has no batch, use --task"]
    counts: list[int] = []
    total = 0
    step: float | None = None
    for number in range(steps):
        value = None
        if loss is not None:
            try:
                value, count = _counted(partial(_differentiate, network, loss))
                counts.append(count)
            except RuntimeError as error:
                unknown.append(f"forward and backward pass: {_reason(error)}")
                loss = None
        if value is None:
            _empty_gradients(network)
        try:
            total += _counted(partial(_take_step, optimizers, value))[1]
            step = total / (number + 1)
        except (RuntimeError, TypeError) as error:
            unknown.append(f"the optimizer's step: {_reason(error)}")
            step = None
            break
    return sum(counts) / len(counts) if counts else None, step, steps, tuple(unknown)


def _shares(
    network: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    loss: Callable[[], Tensor] | None,
    ranks: int,
    steps: int,
) -> tuple[RankLoad, ...]:
    def differentiate() -> Tensor | None:
        if loss is not None:
            return _differentiate(network, loss)
        _empty_gradients(network)
        return None

    return tuple(loads(works(optimizers, differentiate, steps), ranks))


def _counted(action: Callable[[], Any]) -> tuple[Any, int]:
    with FlopCounterMode(display=False) as counter:
        result = action()
    return result, counter.get_total_flops()


def _differentiate(network: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
    network.zero_grad()
    value = loss()
    value.backward(retain_graph=True)  # some optimizers differentiate once more
    return value


def _take_step(optimizers: list[torch.optim.Optimizer], value: Tensor | None) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if "nonfinite" in group:
                group["nonfinite"] = "ignore"  # whether a gradient is finite cannot be seen without numbers
        optimizer.step() if value is None else optimizer.step(lambda: value)  # type: ignore[arg-type, return-value]


def _empty_gradients(network: nn.Module) -> None:
    for parameter in network.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None


def _reason(error: Exception) -> str:
    """Why something cannot run where tensors hold no numbers."""
    return f"cannot run on the meta device ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
