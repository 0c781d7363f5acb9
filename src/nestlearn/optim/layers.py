"""What layers see, measured for the rules that look at it (O12, O15, O19).

A rule declares what it reads and every how many writes (``Link.reads``): "inputs", the covariance A of what goes into a
layer, and "errors", the covariance B of its error signals. Exactly that is recorded, and where several steps are
written together it waits in the state as the gradients do.

A record belongs to a layer and its name. Which parameter is whose weight is looked up when all of them are at rest, as
a weight that is sharded is another tensor during a pass.
"""

import warnings
import weakref
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from nestlearn.errors import choice
from nestlearn.optim.adapter import Adapter
from nestlearn.optim.checks import describe
from nestlearn.optim.lanes import memory_dtype
from nestlearn.optim.layer_inputs import LayerRecorder, Sums, add, in_backward
from nestlearn.optim.ranks import added, agree, place
from nestlearn.optim.readable import is_turned, refusal, weight_of
from nestlearn.optim.settings import Group
from nestlearn.optim.stacks import Held
from nestlearn.optim.states import initialised

__all__ = ["LAYERS", "Layers"]

LAYERS = ("inputs", "errors")
"""What can be read of a layer."""

Reads = dict[str, frozenset[int]]
"""What is read of a layer, and every how many writes."""

_WAITING = ("pending_inputs", "pending_errors", "pending_rows")

Sum = TypeVar("Sum", bound=Tensor | int | None)


class _Reader(NamedTuple):
    """A parameter whose rule looks at layers: its group, and what is read."""

    parameter: Tensor
    group: Group
    reads: Reads


class Layers:
    """Records what the layers of a model see for the rules of one optimizer.

    Args:
        optimizer: whose rules look at layers.
        model: whose layers are watched.
        unreadable: what becomes of matrices of which nothing can be read: "raise", or "elementwise".
    """

    def __init__(self, optimizer: Adapter, model: nn.Module, unreadable: str = "raise") -> None:
        choice("unreadable", unreadable, ("raise", "elementwise"))
        self.model, self.unreadable = model, unreadable
        # The model holds the hooks: they must not keep the optimizer.
        self._optimizer = weakref.ref(optimizer)
        self._recorder: LayerRecorder | None = None
        self._readers: dict[int, _Reader] = {}
        self._of_layer: dict[str, _Reader] = {}
        self._turned: set[int] = set()
        self._grouped: list[tuple[int, int]] = []
        self._settled = False
        self._said = False

    def watch(self) -> None:
        """Put hooks on the layers, if there are none yet, and look for every matrix among them."""
        optimizer = self._own()
        if self._recorder is None:
            mine = weakref.WeakMethod(self._wants)
            rows = [link.layer_rows for group in optimizer.param_groups for link in optimizer.links(group)]
            self._recorder = LayerRecorder(
                self.model,
                rows=min((each for each in rows if each is not None), default=None),
                wanted=lambda name, weight: () if (ask := mine()) is None else ask(name, weight),
            )
            weakref.finalize(self, self._recorder.remove)
        self._settle()
        readable = {id(weight_of(layer)) for layer in self._recorder.layers.values()}
        refused = [reader.parameter for number, reader in self._readers.items() if number not in readable]
        if refused:
            self._refuse(optimizer, refused)

    def _refuse(self, optimizer: Adapter, parameters: list[Tensor]) -> None:
        """Say which matrices cannot be read and why, as an error, or once when they get the element-wise rule."""
        who = type(optimizer).__name__
        why = "; ".join(f"{describe(optimizer, each)}: {refusal(self.model, each)}" for each in parameters)
        if self.unreadable == "raise":
            raise ValueError(
                f"{who} looks at what layers see, and this cannot be read: {why}. Name these in elementwise= "
                "(embeddings, say), pass unreadable='elementwise', which gives all such matrices the element-wise "
                "rule, or pass as model= the module that owns them."
            )
        optimizer.give_elementwise(parameters)
        self._settle()
        warnings.warn(f"{who}: element-wise, since it cannot be read: {why}", UserWarning, stacklevel=2)

    def follow(self) -> None:
        """Look for the matrices of a group that has come since."""
        if self._recorder is not None:
            self.watch()

    def turned(self, parameter: Tensor) -> bool:
        """Whether a layer stores this weight as [in, out]."""
        return id(parameter) in self._turned

    def observe(self) -> dict[str, dict[Tensor, Tensor]]:
        """The covariances that are due: name -> weight -> [in, in] or [out, out]."""
        optimizer = self._own()
        self._settle()
        if any(set(LAYERS) & optimizer.reads(group).keys() for group in optimizer.param_groups):
            agree(type(optimizer).__name__, [reader.parameter for reader in self._readers.values()])
        found: dict[str, dict[Tensor, Tensor]] = {name: {} for name in LAYERS}
        for reader, sums in _over_ranks(optimizer, self._recorded(optimizer)):
            *totals, rows = self._collected(optimizer, reader, sums)
            for name, total in zip(LAYERS, totals, strict=True):
                if name in reader.reads:
                    assert total is not None, "what is read was recorded"
                    count = rows.clamp(min=1) if isinstance(rows, Tensor) else max(rows, 1)
                    found[name][reader.parameter] = (total / count).to(memory_dtype(reader.parameter))
        return found

    def drop(self) -> None:
        """Forget what was recorded for gradients that a step has used, or that are about to be dropped.

        In a backward pass, where a hook takes a step, what belongs to gradients that are yet to come is kept.
        """
        self._settled = False
        if self._recorder is not None:
            here = [name for name, reader in self._of_layer.items() if reader.parameter.grad is not None]
            self._recorder.drop(here if in_backward() else None)

    def waiting(self, parameter: Tensor, group: Group, device: torch.device | str | None) -> dict[str, Tensor]:
        """What of a layer waits in the state for the end of a period, when nothing has come yet."""
        optimizer = self._own()
        read = optimizer.reads(group).keys() & set(LAYERS)
        if not read:
            return {}
        inputs, errors, _ = _nothing(optimizer, parameter, group, device)
        found = {"pending_inputs": inputs, "pending_rows": torch.zeros((), dtype=torch.float32)}
        return {**found, "pending_errors": errors} if "errors" in read else found

    def _own(self) -> Adapter:
        optimizer = self._optimizer()
        assert optimizer is not None, "it outlives what it measures for"
        return optimizer

    def _settle(self) -> None:
        """Look up which parameter is the weight of which layer. Where none is, the one that was stays."""
        optimizer = self._own()
        self._readers = {id(reader.parameter): reader for reader in self._matrices(optimizer)}
        layers = {} if self._recorder is None else self._recorder.layers
        weights = {name: id(weight_of(layer)) for name, layer in layers.items()}
        self._of_layer |= {name: self._readers[own] for name, own in weights.items() if own in self._readers}
        self._turned |= {weights[name] for name, layer in layers.items() if is_turned(layer)}
        self._grouped, self._settled = _grouping(optimizer), True

    def _recorded(self, optimizer: Adapter) -> list[tuple[_Reader, Sums]]:
        """What was recorded for each matrix with a gradient whose rule looks at layers."""
        idle = all(float(group["lr"]) == 0 for group in optimizer.param_groups)
        names: dict[int, list[str]] = {}
        for name, reader in self._of_layer.items():
            names.setdefault(id(reader.parameter), []).append(name)
        recorded = []
        for number, reader in self._readers.items():
            if reader.parameter.grad is None:
                continue
            sums = self._sums(names.get(number, ()))
            if sums is None:
                if not idle and _due(optimizer, reader):
                    self._missing(optimizer, reader, names.get(number, ()))
                sums = _nothing(optimizer, reader.parameter, reader.group)
            recorded.append((reader, sums))
        return recorded

    def _sums(self, names: Sequence[str]) -> Sums | None:
        """The sums of all layers that have one weight."""
        assert self._recorder is not None, "optimizers watch from the start"
        found = [sums for name in names if (sums := self._recorder.recorded(name)) is not None]
        return reduce(add, found) if found else None

    def _missing(self, optimizer: Adapter, reader: _Reader, names: Sequence[str]) -> None:
        """Say why there is no record for a gradient: as an error, unless it was let go because it was not finite."""
        assert self._recorder is not None, "optimizers watch from the start"
        called = self._recorder.called
        who, layer = describe(optimizer, reader.parameter), " and ".join(map(repr, names))
        if self._recorder.lost.intersection(names):
            if not self._said and reader.group["nonfinite"] == "raise":  # else it is said of the gradients
                self._said = True
                warnings.warn(
                    f"{who}: what its layer {layer} saw, or the slopes in its answers, were NaN, infinite or too large "
                    "to be squared. None of it enters a memory. Lower lr, clip gradients, or scale the loss less.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return
        if called.intersection(names):
            raise RuntimeError(
                f"{who}: what its layer {layer} saw was not recorded since the last step: it was called, but no "
                "backward pass came through it to the weight. Run the backward pass between zero_grad() and step()."
            )
        if called:
            raise RuntimeError(
                f"{who}: it has a gradient, but its layer {layer} was not called since the last step: somebody "
                "multiplies by the weight without calling the layer. Name it in elementwise=, or call the layer."
            )
        raise RuntimeError(
            f"{who}: it has a gradient, but no layer of model= was called since the last step. Run the forward and "
            "backward passes through the model that was given as model=, not through a copy. A model that was compiled "
            "and run before this optimizer was made goes on without its hooks: make the optimizer first, or call "
            "torch.compiler.reset() once it is made."
        )

    def _collected(self, optimizer: Adapter, reader: _Reader, sums: Sums) -> Sums:
        """The sums since the last write of a weight: earlier ones of its period wait in its state, as gradients do."""
        period = reader.group["period"]
        if period == 1:
            return sums
        state = initialised(optimizer, reader.parameter, reader.group)
        inputs, errors, rows = sums
        totals = (
            _waited(state, "pending_inputs", inputs),
            _waited(state, "pending_errors", errors),
            _waited(state, "pending_rows", rows),
        )
        last = (int(state["step"]) + 1) % period == 0
        for name, total in zip(_WAITING, totals, strict=True):
            if name in state:
                state[name].copy_(torch.zeros_like(state[name]) if last else total)
        return totals

    def _wants(self, name: str, weight: Tensor) -> tuple[str, ...]:
        """What the coming step looks at of what a layer sees."""
        optimizer = self._optimizer()
        if optimizer is None:
            return ()
        if not self._settled or self._grouped != _grouping(optimizer):
            self._settle()
        reader = self._readers.get(id(weight)) or self._of_layer.get(name)
        return tuple(reader.reads) if reader is not None and _due(optimizer, reader) else ()

    @staticmethod
    def _matrices(optimizer: Adapter) -> Iterator[_Reader]:
        """All that a rule for matrices writes which looks at layers."""
        for group in optimizer.param_groups:
            rules = optimizer.rules(group)
            reads = {name: rules.reads[name] for name in LAYERS if name in rules.reads}
            for parameter in group["params"] if reads else ():
                if not optimizer.entry_of(parameter, rules).flat:
                    yield _Reader(parameter, group, reads)


def _over_ranks(optimizer: Adapter, recorded: list[tuple[_Reader, Sums]]) -> list[tuple[_Reader, Sums]]:
    """The sums that are due over the rows of all ranks."""
    ranks = place()[1]
    if ranks == 1:
        return recorded
    due = [_due(optimizer, reader) for reader, _ in recorded]
    parts: list[Tensor] = []
    for (_, (inputs, errors, rows)), now in zip(recorded, due, strict=True):
        if now:
            # The loss of all is the mean over the ranks: an answer errs by less than this rank's own loss says.
            parts += [inputs, inputs.new_zeros(()) if errors is None else errors / ranks**2]
            parts.append(torch.as_tensor(rows, dtype=inputs.dtype, device=inputs.device))
    whole = iter(added(parts))

    def summed(sums: Sums) -> Sums:
        inputs, errors, rows = next(whole), next(whole), next(whole)
        return inputs, None if sums[1] is None else errors, rows

    return [(reader, summed(sums) if now else sums) for (reader, sums), now in zip(recorded, due, strict=True)]


def _due(optimizer: Adapter, reader: _Reader) -> bool:
    """Whether the coming write of a parameter looks at its layer; gradients that wait for it count as well."""
    writes = optimizer.taken(reader.parameter) // reader.group["period"]
    return any(writes % every == 0 for paces in reader.reads.values() for every in paces)


def _grouping(optimizer: Adapter) -> list[tuple[int, int]]:
    return [(id(group), len(group["params"])) for group in optimizer.param_groups]


def _waited(state: Held, name: str, value: Sum) -> Sum:
    """A sum with what waits in the state for it."""
    total: Sum = state[name] + value if name in state else value
    return total


def _nothing(
    optimizer: Adapter, parameter: Tensor, group: Group, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor, int]:
    out, into = optimizer.entry(parameter, group).shape
    place, dtype = device or parameter.device, memory_dtype(parameter)
    return torch.zeros(into, into, dtype=dtype, device=place), torch.zeros(out, out, dtype=dtype, device=place), 0
