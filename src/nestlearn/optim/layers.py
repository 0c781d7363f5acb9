"""What layers see, measured for the rules that look at it (O12, O15, O19).

A rule declares what it reads and every how many writes (``Link.reads``): "inputs", the covariance A of what goes into a
layer, and "errors", the covariance B of its error signals. Exactly that is recorded, and where several steps are
written together it waits in the state as the gradients do.
"""

import weakref
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from nestlearn.optim.adapter import Adapter
from nestlearn.optim.checks import describe, one_process
from nestlearn.optim.lanes import matrix_shape, memory_dtype
from nestlearn.optim.layer_inputs import LayerRecorder, Sums
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


class Layers:
    """Records what the layers of a model see for the rules of one optimizer.

    Args:
        optimizer: whose rules look at layers.
        model: whose layers are watched.
    """

    def __init__(self, optimizer: Adapter, model: nn.Module) -> None:
        self.model = model
        # The model holds the hooks: they must not keep the optimizer.
        self._optimizer = weakref.ref(optimizer)
        self._recorder: LayerRecorder | None = None
        self._groups_of: dict[int, tuple[Group, Reads] | None] = {}
        self._grouped: list[tuple[int, int]] = []

    def watch(self) -> None:
        """Put hooks on the layers, if there are none yet, and look for every matrix among them."""
        optimizer = self._own()
        self._groups_of, self._grouped = {}, []
        if self._recorder is None:
            mine = weakref.WeakMethod(self._wants)
            rows = [link.layer_rows for group in optimizer.param_groups for link in optimizer.links(group)]
            self._recorder = LayerRecorder(
                self.model,
                rows=min((each for each in rows if each is not None), default=None),
                wanted=lambda weight: () if (ask := mine()) is None else ask(weight),
            )
            weakref.finalize(self, self._recorder.remove)
        watched = self._recorder.watched()
        for _, parameter, reads in self._matrices(optimizer):
            if parameter not in watched and reads:
                raise ValueError(
                    f"{type(optimizer).__name__}: {describe(optimizer, parameter)} is no weight of an nn.Linear or "
                    "nn.Conv2d of model=, so its inputs cannot be read. Name it in elementwise= (embeddings, say), or "
                    "pass the model that owns it."
                )

    def follow(self) -> None:
        """Look for the matrices of a group that has come since."""
        if self._recorder is not None:
            self.watch()

    def observe(self) -> dict[str, dict[Tensor, Tensor]]:
        """The covariances that are due: name -> weight -> [in, in] or [out, out]."""
        optimizer = self._own()
        if any(set(LAYERS) & optimizer.reads(group).keys() for group in optimizer.param_groups):
            one_process(
                optimizer,
                "layers",
                "Train in one process, or take SecantMomentum without model=, or Muon: they read gradients alone.",
            )
        found: dict[str, dict[Tensor, Tensor]] = {name: {} for name in LAYERS}
        for parameter, group, reads, sums in self._recorded(optimizer):
            *totals, rows = self._collected(optimizer, parameter, group, sums)
            for name, total in zip(LAYERS, totals, strict=True):
                if name in reads:
                    assert total is not None, "what is read was recorded"
                    found[name][parameter] = (total / max(int(rows), 1)).to(memory_dtype(parameter))
        return found

    def drop(self) -> None:
        """Forget what was recorded."""
        self._groups_of = {}
        if self._recorder is not None:
            self._recorder.drop()

    def waiting(self, parameter: Tensor, group: Group, device: torch.device | str | None) -> dict[str, Tensor]:
        """What of a layer waits in the state for the end of a period, when nothing has come yet."""
        read = self._own().reads(group).keys() & set(LAYERS)
        if not read:
            return {}
        inputs, errors, _ = _nothing(parameter, device)
        found = {"pending_inputs": inputs, "pending_rows": torch.zeros((), dtype=torch.float32)}
        return {**found, "pending_errors": errors} if "errors" in read else found

    def _own(self) -> Adapter:
        optimizer = self._optimizer()
        assert optimizer is not None, "it outlives what it measures for"
        return optimizer

    def _recorded(self, optimizer: Adapter) -> list[tuple[Tensor, Group, Reads, Sums]]:
        """(weight, its group, what is read, its sums) of each matrix with a gradient whose rule looks at layers."""
        idle = all(float(group["lr"]) == 0 for group in optimizer.param_groups)
        recorded = []
        known = {} if self._recorder is None else self._recorder.recorded()
        for group, parameter, reads in self._matrices(optimizer):
            if parameter.grad is None or not reads:
                continue
            sums = known.get(parameter)
            if sums is None and not idle and self._due(optimizer, parameter, group, reads):
                raise RuntimeError(
                    f"{describe(optimizer, parameter)}: its layer's inputs were not recorded since the last step. Run "
                    "the forward and backward passes through the model that was given as model=."
                )
            recorded.append((parameter, group, reads, sums or _nothing(parameter)))
        return recorded

    def _collected(self, optimizer: Adapter, parameter: Tensor, group: Group, sums: Sums) -> Sums:
        """The sums since the last write of a weight: earlier ones of its period wait in its state, as gradients do."""
        if group["period"] == 1:
            return sums
        state = initialised(optimizer, parameter, group)
        inputs, errors, rows = sums
        totals = (
            _waited(state, "pending_inputs", inputs),
            _waited(state, "pending_errors", errors),
            _waited(state, "pending_rows", rows),
        )
        last = (int(state["step"]) + 1) % group["period"] == 0
        for name, total in zip(_WAITING, totals, strict=True):
            if name in state:
                state[name].copy_(torch.zeros_like(state[name]) if last else total)
        return totals

    def _wants(self, weight: Tensor) -> tuple[str, ...]:
        """What the coming step looks at of what the layer of this weight sees."""
        optimizer = self._optimizer()
        if optimizer is None:
            return ()
        grouped = [(id(group), len(group["params"])) for group in optimizer.param_groups]
        if grouped != self._grouped:
            self._groups_of, self._grouped = {}, grouped
        if id(weight) not in self._groups_of:
            self._groups_of.update(
                {id(parameter): (group, reads) for group, parameter, reads in self._matrices(optimizer)}
            )
            self._groups_of.setdefault(id(weight), None)  # somebody else's: not looked for again in this step
        if (found := self._groups_of[id(weight)]) is None:
            return ()
        group, reads = found
        return tuple(reads) if self._due(optimizer, weight, group, reads) else ()

    @staticmethod
    def _due(optimizer: Adapter, parameter: Tensor, group: Group, reads: Reads) -> bool:
        """Whether the coming write of a parameter looks at its layer; gradients that wait for it count as well."""
        writes = optimizer.taken(parameter) // group["period"]
        return any(writes % every == 0 for paces in reads.values() for every in paces)

    @staticmethod
    def _matrices(optimizer: Adapter) -> Iterator[tuple[Group, Tensor, Reads]]:
        """(group, parameter, what is read of its layer) of all that a rule for matrices writes."""
        for group in optimizer.param_groups:
            rules = optimizer.rules(group)
            reads = {name: rules.reads[name] for name in LAYERS if name in rules.reads}
            for parameter in group["params"]:
                if not optimizer.entry_of(parameter, rules).flat:
                    yield group, parameter, reads


def _waited(state: Held, name: str, value: Sum) -> Sum:
    """A sum with what waits in the state for it."""
    total: Sum = state[name] + value if name in state else value
    return total


def _nothing(parameter: Tensor, device: torch.device | str | None = None) -> tuple[Tensor, Tensor, int]:
    out, into = matrix_shape(parameter)
    place, dtype = device or parameter.device, memory_dtype(parameter)
    return torch.zeros(into, into, dtype=dtype, device=place), torch.zeros(out, out, dtype=dtype, device=place), 0
