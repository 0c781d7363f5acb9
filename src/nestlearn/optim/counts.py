"""How many steps each parameter has taken: ``state["step"]``, a number for each, and one line of memory for all.

Adding one to each of a thousand tensors takes longer than the writes of many rules. So the counts lie in one tensor, of
which each state holds its own; a state in which somebody has put another is noticed.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import is_

import torch
from torch import Tensor

from nestlearn.optim.stacks import Held, piece

__all__ = ["Counts"]


class Counts:
    """The step counts of an optimizer's parameters."""

    def __init__(self) -> None:
        self._line = torch.zeros(0)
        self._own: list[Tensor] = []
        self._addresses: list[int] = []
        self._places: dict[int, int] = {}

    def advance(self, states: Sequence[Held], everybody: Iterable[Held]) -> list[int]:
        """Count a step of some states; returns the counts.

        Args:
            states: whose counts go up.
            everybody: the states of all parameters, which share the line.
        """
        steps: list[Tensor] = [state["step"] for state in states]
        if self._are_all(steps):
            self._line.add_(1)
            return list(map(int, self._line.tolist()))
        places = [self._places.get(id(step), -1) for step in steps]
        if -1 in places or len(places) == len(self._own) or not self._hold(steps, places):
            _as_tensors(states)
            steps = [state["step"] for state in states]
            if not all(map(_can_lie, steps)):  # another type, another device: as they are
                torch._foreach_add_(steps, 1)
                return list(map(int, steps))
            self._bind([*states, *_others(states, everybody)])
            return self.advance(states, ())
        ones = [0.0] * len(self._own)
        for place in places:
            ones[place] = 1.0
        self._line.add_(torch.tensor(ones))
        found = self._line.tolist()
        return [int(found[place]) for place in places]

    def _are_all(self, steps: list[Tensor]) -> bool:
        """Whether these are the counts of the line, all of them, in order."""
        same = len(steps) == len(self._own) and all(map(is_, steps, self._own))
        return same and list(map(Tensor.data_ptr, steps)) == self._addresses

    def _hold(self, steps: list[Tensor], places: list[int]) -> bool:
        """Whether these counts lie at these places of the line."""
        return [self._addresses[place] for place in places] == list(map(Tensor.data_ptr, steps))

    def _bind(self, states: Sequence[Held]) -> None:
        """Put the counts of these states in one line."""
        self._line = torch.stack([state["step"] for state in states])
        self._own = list(map(piece, self._line.unbind(0)))
        self._addresses = list(map(Tensor.data_ptr, self._own))
        self._places = {id(own): place for place, own in enumerate(self._own)}
        for state, own in zip(states, self._own, strict=True):
            state["step"] = own


def _as_tensors(states: Sequence[Held]) -> None:
    """Others count in plain numbers, as torch did before 1.12."""
    for state in states:
        if not isinstance(state["step"], Tensor):
            state["step"] = torch.tensor(float(state["step"]), dtype=torch.float32)


def _others(states: Sequence[Held], everybody: Iterable[Held]) -> Iterator[Held]:
    """States that have a count and are none of these."""
    known = set(map(id, states))
    for state in everybody:
        if id(state) not in known and _can_lie(state.get("step")):
            yield state


def _can_lie(step: object) -> bool:
    """Whether a count can be one of a line."""
    return type(step) is Tensor and step.dtype is torch.float32 and step.is_cpu and step.ndim == 0
