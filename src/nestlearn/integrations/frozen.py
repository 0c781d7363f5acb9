"""One step in full, of a few parameters: what their memories were shown, what they answered, and what was written.

Of each parameter the step is done once more, on copies, by the same rule with eyes in it; what the copies hold then is
compared with what the optimizer really wrote, and where the two differ the frozen step says so instead. So what is
shown is what happened, whichever kernel, stack or block it happened in.

A tensor is told as ``{"shape", "rms", "largest", "cells"}``: the cells are the tensor as rows and columns, at most 16
of each, and of neighbours that share a cell the entry that is largest in size is the one told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import Constant, Parameters
from nestlearn.memory.nesting import Consult, Consulted, Scene
from nestlearn.memory.rules import Context, Kept, Rule, Updates
from nestlearn.memory.state import State, flatten, unflatten
from nestlearn.memory.words import model_words, objective_words
from nestlearn.optim.adapter import Observations
from nestlearn.optim.due import Terms
from nestlearn.optim.lanes import as_real, matrix_shape, memory_dtype
from nestlearn.optim.optimizer import Optimizer
from nestlearn.optim.sharded import any_sharded

__all__ = ["Frozen", "summary"]

CELLS = 16
PARAMETERS = 6
MEMORIES = 6
SIDE = 512
"""The smaller side of a matrix whose singular values are told, at most."""

VALUES = 32
"""Singular values that are told."""

LARGEST = 1 << 24
"""Entries of a parameter that is shown, at most: it is copied with its memories."""

CLOSE = 1e-3
"""How far, relative to what was written, the step done once more may be from the step: rounding."""

CONSULT, CONSULTED = ([item.name for item in fields(kind)] for kind in (Consult, Consulted))

Shown = tuple[Tensor, str, str]


class Frozen:
    """The parameters ``chosen``, a tensor with its name and role each, before a step; ``seen`` after it says all."""

    def __init__(self, optimizer: torch.optim.Optimizer, chosen: Sequence[Shown]) -> None:
        fitting = [each for each in chosen if each[0].numel() <= LARGEST and not any_sharded([each[0]])]
        self._chosen = fitting[:PARAMETERS]
        self._weights = [parameter.detach().clone() for parameter, _, _ in self._chosen]
        self._states = [_state(optimizer, parameter) for parameter, _, _ in self._chosen]
        self._observed: Observations = {}
        self._optimizer = optimizer
        if isinstance(optimizer, Optimizer):
            measure = optimizer.observe

            def observe(loss: object) -> Observations:
                self._observed = measure(loss)
                return self._observed

            vars(optimizer)["observe"] = observe  # for this step alone: see forget

    def forget(self) -> None:
        """Look no more at what the optimizer measures."""
        vars(self._optimizer).pop("observe", None)

    @torch.no_grad()
    def seen(self, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
        """What the step did to each parameter that has a gradient, as data for JSON."""
        self.forget()
        told = zip(self._chosen, self._weights, self._states, strict=True)
        return [
            self._parameter(optimizer, shown, weight, state)
            for shown, weight, state in told
            if shown[0].grad is not None and not shown[0].grad.is_sparse
        ]

    def _parameter(
        self, optimizer: torch.optim.Optimizer, shown: Shown, weight: Tensor, state: dict[str, Tensor]
    ) -> dict[str, Any]:
        parameter, name, role = shown
        after, gradient = as_real(parameter.detach()), as_real(parameter.grad.detach())  # type: ignore[union-attr]
        change = after.to(memory_dtype(after)) - as_real(weight)
        found: dict[str, Any] = {
            "name": name,
            "role": role,
            "shape": list(parameter.shape),
            "gradient": summary(gradient),
            "weights": {"before": summary(as_real(weight)), "change": summary(change), "singular": singular(change)},
        }
        if not isinstance(optimizer, Optimizer):
            now = optimizer.state.get(parameter, {})
            return {
                **found,
                "memories": _of_any(state, now),
                "note": "what a memory was shown is known of rules of nl.optim",
            }
        try:
            return {**found, **self._again(optimizer, parameter, weight, gradient, state)}
        except Exception as error:  # noqa: BLE001 - a rule of somebody's own may not bear it, and training goes on
            return {**found, "memories": [], "note": f"the step could not be done once more: {error}"}

    def _again(
        self, optimizer: Optimizer, parameter: Tensor, weight: Tensor, gradient: Tensor, state: dict[str, Tensor]
    ) -> dict[str, Any]:
        """The step of one parameter once more: what its memories saw, and what the rule made of their answers."""
        group = next(each for each in optimizer.param_groups if any(p is parameter for p in each["params"]))
        steps, period = optimizer.taken(parameter), group["period"]
        if steps % period:
            return {"memories": [], "note": f"its gradients wait for the end of a period of {period} steps"}
        terms = Terms(optimizer.rules(group), group)
        entry = optimizer.entry_of(parameter, terms.rules)
        rates = terms.rates(optimizer, own=entry.own_lr or group["elementwise_lr"] is None)
        total = gradient + state["pending"].to(gradient) if "pending" in state else gradient
        (total,) = rates.downhill([total])
        dtype, time = memory_dtype(as_real(weight)), steps // period - 1
        held = {key: leaf for key, leaf in state.items() if key != "step" and not key.startswith("pending")}

        def shaped(tensor: Tensor) -> Tensor:
            tensor = as_real(tensor).to(dtype)
            return tensor if entry.flat else entry.cut.apart(tensor.reshape(1, *matrix_shape(tensor)))

        buffers = {key: leaf if entry.flat else leaf.unsqueeze(0) for key, leaf in held.items()}
        seen = {} if entry.flat else {
            key: values[parameter].unsqueeze(0) for key, values in self._observed.items() if parameter in values
        }  # fmt: skip
        notes: list[dict[str, Any]] = []
        rule = watched(entry.rule, notes, "")
        context = Context(
            parameters={"weight": shaped(weight)},
            time=time,
            lr=rates.lr,
            retention=rates.retention,
            observations=seen,
            scalars=entry.rule.scalars(time),
        )
        updates, written = rule.update({"weight": unflatten(buffers)}, {"weight": shaped(total)}, context)
        again, now = flatten(written.get("weight", {})), optimizer.state.get(parameter, {})
        for key, leaf in again.items():
            here = now.get(key)
            if here is not None and not _same(leaf.reshape(here.shape), here, held[key]):
                note = f"the step done once more wrote {key} otherwise, so what was shown to it cannot be told"
                return {"memories": [], "note": note}
        update = updates["weight"]
        update = update.update if isinstance(update, Kept) else update
        told = {"update": {**summary(update), "singular": singular(update)}}
        return {**told, "memories": notes[:MEMORIES], "note": ""}


def _state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """A copy of what the optimizer keeps for a parameter, or of what it will begin with."""
    held: Mapping[str, Any] = optimizer.state.get(parameter, {})
    if isinstance(optimizer, Optimizer) and "step" not in held:
        group = next(each for each in optimizer.param_groups if any(p is parameter for p in each["params"]))
        held = optimizer.fresh_state(parameter, group)
    return {key: leaf.detach().clone() for key, leaf in held.items() if isinstance(leaf, Tensor)}


def _same(again: Tensor, here: Tensor, before: Tensor) -> bool:
    """Whether a memory was written alike, but for rounding."""
    if not again.is_floating_point():
        return torch.equal(again, here)
    moved = (here.to(again) - before.to(again).reshape(here.shape)).norm()
    scale = torch.maximum(moved, here.to(again).norm() * 1e-3)
    return bool((again - here.to(again)).norm() <= CLOSE * scale + torch.finfo(here.dtype).eps)


def _of_any(before: Mapping[str, Tensor], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What became of the tensors that another optimizer keeps, as large as a vector at least."""
    return [
        {"path": key, "write": {key: summary(leaf.detach().to(then) - then)}, "holds": {key: summary(leaf.detach())}}
        for key, leaf in now.items()
        if isinstance(leaf, Tensor) and leaf.ndim and leaf.is_floating_point()
        for then in [before.get(key, torch.zeros_like(leaf))]
        if then.shape == leaf.shape
    ]


def watched(rule: Rule, notes: list[dict[str, Any]], path: str) -> Rule:
    """The same rule, which notes what the memories that it consults are shown."""
    if not isinstance(rule, Consult):
        return rule
    values = {name: getattr(rule, name) for name in CONSULT}
    return _Watched(**values, notes=notes, within=path)


@dataclass(frozen=True)
class _Watched(Consult):
    notes: Any = None
    within: str = ""

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Updates, State]:
        updates: dict[str, Tensor | Kept] = {}
        written: State = {}
        for name, gradient in gradients.items():
            within = f"{self.within}.{name}." if self.within else ""
            one = replace(self, memories=self._noting(within))
            parameters = None if context.parameters is None else {name: context.parameters[name]}
            here = replace(context, parameters=parameters, inplace=False)
            update, new = Consult.update(one, {name: state.get(name, {})}, {name: gradient}, here)
            updates |= update
            written |= new
        return updates, written

    def _noting(self, within: str) -> Callable[[torch.Size], tuple[Consulted, ...]]:
        memories, notes = self.memories, self.notes

        def noted(shape: torch.Size) -> tuple[Consulted, ...]:
            values = [{name: getattr(each, name) for name in CONSULTED} for each in memories(shape)]
            return tuple(_Noted(**each, notes=notes, place=f"{within}{each['name']}") for each in values)

        return noted


@dataclass(frozen=True)
class _Noted(Consulted):
    """A memory that notes what it is shown, and whose rule does so in its turn."""

    notes: Any = None
    place: str = ""

    def consult(self, state: State, scene: Scene) -> tuple[Tensor, State]:
        plain = {name: getattr(self, name) for name in CONSULTED}
        memory = self.memory
        key, value = self.key(scene), self.value(scene)
        note: dict[str, Any] = {
            "path": self.place,
            "model": model_words(memory.model),
            "objective": objective_words(memory.objective),
        }
        self.notes.append(note)
        note |= shown_to(memory, state, key, value)
        raw: list[Tensor] = []

        def readout(answer: Tensor, scene: Scene) -> Tensor:
            raw.append(answer)
            return answer if self.readout is None else self.readout(answer, scene)

        rule = watched(memory.rule, self.notes, self.place)
        one = Consulted(**{**plain, "memory": replace(memory, rule=rule), "readout": readout})
        before = {name: leaf.clone() for name, leaf in state["model"].items()}
        answer, written = one.consult(state, replace(scene, inplace=False))
        moved = {name: written["model"][name] - leaf for name, leaf in before.items()}
        note["write"] = {name: summary(leaf) for name, leaf in moved.items()}
        note["written"] = any(bool(leaf.any()) for leaf in moved.values())
        note["readout"] = {"after": summary(answer), "singular": singular(answer)}
        if raw:
            note["readout"] |= {"before": summary(raw[0]), "singular before": singular(raw[0])}
        return answer, written


def shown_to(memory: AssociativeMemory, state: State, key: Tensor, value: Tensor) -> dict[str, Any]:
    """Key, value, and what the memory answered before it was written: answer, error, surprise."""
    answer = memory.read(state, key)
    surprise = memory.surprise(state, key, value)
    told = {} if isinstance(memory.model, Constant) else {"key": summary(key)}
    error = memory.objective.error(answer, value)
    told |= {"value": summary(value), "answer": summary(answer), "error": summary(error)}
    return {**told, "surprise": float(surprise.double().mean())}


def summary(tensor: Tensor) -> dict[str, Any]:
    """A tensor in few numbers, see above; of a batch of one the only member."""
    tensor = tensor.detach()
    while tensor.ndim > 2 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if not tensor.numel():
        return {"shape": list(tensor.shape), "rms": 0.0, "largest": 0.0, "cells": []}
    real = tensor.to(torch.float32 if tensor.dtype != torch.float64 else torch.float64)
    grid = real.reshape(1, -1) if real.ndim < 2 else real.reshape(real.shape[0], -1)
    return {
        "shape": list(tensor.shape),
        "rms": float(real.norm()) / math.sqrt(real.numel()),
        "largest": float(real.abs().max()),
        "cells": [[float(f"{number:.3g}") for number in row] for row in _pooled(grid).tolist()],
    }


def _pooled(grid: Tensor) -> Tensor:
    """At most CELLS rows and columns, each cell with the largest of its entries in size, signs kept."""
    size = tuple(min(CELLS, side) for side in grid.shape)
    if size == tuple(grid.shape):
        return grid
    _, places = F.adaptive_max_pool2d(grid.abs()[None, None], size, return_indices=True)
    return grid.reshape(-1)[places.reshape(-1)].reshape(size)


def singular(tensor: Tensor) -> list[float] | None:
    """The largest singular values of a matrix; None of what is no matrix, too large a one, or not finite."""
    while tensor.ndim > 2 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim < 2:
        return None
    matrix = tensor.detach().reshape(matrix_shape(tensor))
    if min(matrix.shape) < 2 or min(matrix.shape) > SIDE or not bool(matrix.isfinite().all()):
        return None
    values: list[float] = torch.linalg.svdvals(matrix.to(memory_dtype(matrix)).cpu())[:VALUES].tolist()
    return [float(f"{number:.4g}") for number in values]
