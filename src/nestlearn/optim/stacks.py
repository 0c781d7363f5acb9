"""Stacks: the memories of parameters that are alike, one behind the other, so that one operation writes them all.

The truth is ``state[parameter]``, a flat dictionary of tensors with dotted names. What it holds of a stacked memory is
a part of the stack's. Somebody may put another tensor there (``load_state_dict``, a distributed checkpoint, a program
that prunes), or give the tensor another storage: a stack notices before it is used, and is made anew from the state.
A stack holds every parameter of its kind that has a state, whether it has a gradient now or not, so its bytes are
those of the state.
"""

from collections.abc import Container, Mapping, MutableMapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

__all__ = ["Held", "Stack", "States", "alone", "piece"]

Held = dict[str, Any]
"""What a state holds of a parameter: tensors by dotted names, and whatever others keep there."""

States = MutableMapping[Tensor, Held]


class Stack:
    """The memories of ``parameters`` by name: [parameters, ...] for matrices, end to end for entries.

    Args:
        parameters: the members, in order.
        dtypes: of what the rule remembers of each of them, by its names in the state.
        flat: joined end to end, whatever their shapes; else all of one shape.
    """

    def __init__(self, parameters: Sequence[Tensor], dtypes: Mapping[str, torch.dtype], *, flat: bool) -> None:
        self.parameters = list(parameters)
        self.flat = flat
        self.buffers: dict[str, Tensor] = {}
        self.places = {id(parameter): place for place, parameter in enumerate(self.parameters)}
        self._dtypes = dict(dtypes)
        self._shapes = [parameter.shape for parameter in self.parameters]
        self._views: list[dict[str, tuple[Tensor, int]]] = [{} for _ in self.parameters]
        sizes = [parameter.numel() * (2 if parameter.is_complex() else 1) for parameter in self.parameters]
        self._offsets = [0]
        for size in sizes if flat else [1] * len(sizes):
            self._offsets.append(self._offsets[-1] + size)

    def holds(self, place: int, states: States) -> bool:
        """Whether a member is what it was, and its state still lies in this stack."""
        state = states.get(self.parameters[place], {})
        return self.parameters[place].shape == self._shapes[place] and all(
            state.get(name) is view and view.data_ptr() == address
            for name, (view, address) in self._views[place].items()
        )

    def bind(self, states: States) -> None:
        """Stack what the states of the members hold, and put views of the stack in their place.

        Memories have their own precision, and lie where their parameter does.
        """
        for name, dtype in self._dtypes.items():
            leaves = [states[parameter][name].to(parameter.device, dtype) for parameter in self.parameters]
            if self.flat:
                flat = [leaf.reshape(-1) for leaf in leaves]
                buffer = torch.cat(flat) if len(flat) > 1 else alone(flat[0])
                pieces = buffer.split([leaf.numel() for leaf in leaves])
                own = [piece(part.view(leaf.shape)) for part, leaf in zip(pieces, leaves, strict=True)]
            else:
                buffer = torch.stack(leaves) if len(leaves) > 1 else alone(leaves[0]).unsqueeze(0)
                own = [piece(part) for part in buffer.unbind(0)]
            self.buffers[name] = buffer
            for parameter, views, view in zip(self.parameters, self._views, own, strict=True):
                states[parameter][name] = view
                views[name] = (view, view.data_ptr())

    def release(self, states: States, kept: Container[int] = ()) -> None:
        """Give the members whose ids are not ``kept`` a copy of their own: a view would keep the whole stack."""
        for parameter, views in zip(self.parameters, self._views, strict=True):
            if id(parameter) not in kept and parameter in states:
                state = states[parameter]
                state.update({name: view.clone() for name, (view, _) in views.items() if state.get(name) is view})

    def take(self, places: Sequence[int]) -> dict[str, Tensor]:
        """The memories of some members, in the order of the stack: where they are neighbours, views of the stack."""
        spans = self._spans(places)
        if len(spans) == 1:
            return {name: buffer[spans[0]] for name, buffer in self.buffers.items()}
        return {name: torch.cat([buffer[span] for span in spans]) for name, buffer in self.buffers.items()}

    def put(self, places: Sequence[int], taken: dict[str, Tensor]) -> None:
        """Write back what was taken, where it is no view of the stack."""
        spans = self._spans(places)
        if len(spans) == 1:
            return
        lengths = [span.stop - span.start for span in spans]
        for name, buffer in self.buffers.items():
            torch._foreach_copy_([buffer[span] for span in spans], list(taken[name].split(lengths)))

    def _spans(self, places: Sequence[int]) -> list[slice]:
        """Where members lie in a buffer, neighbours together."""
        if places[-1] - places[0] == len(places) - 1:
            return [slice(self._offsets[places[0]], self._offsets[places[-1] + 1])]
        starts = [0, *(number for number, (one, two) in enumerate(pairwise(places), 1) if two != one + 1)]
        stops = [*starts[1:], len(places)]
        return [
            slice(self._offsets[places[start]], self._offsets[places[stop - 1] + 1])
            for start, stop in zip(starts, stops, strict=True)
        ]


def piece(view: Tensor) -> Tensor:
    """The same memory under a storage of its own size: what saves or copies one tensor then takes no other along."""
    whole = view.untyped_storage().nbytes() == view.nbytes
    can = view.device.type in ("cpu", "cuda") and view.numel() > 0
    return torch.from_dlpack(view) if can and not whole else view


def alone(tensor: Tensor) -> Tensor:
    """The tensor, with a storage of its own if it is a part of a larger one."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
