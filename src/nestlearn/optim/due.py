"""What is due in a step, and on which terms: what parameter groups agree on whose parameters are written together."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from torch import Tensor

from nestlearn.optim.adapter import Adapter
from nestlearn.optim.composed import Rules
from nestlearn.optim.settings import Group
from nestlearn.optim.stacks import Held
from nestlearn.rules.kernels import Rates

__all__ = ["Due", "Terms", "agreed"]


class Terms(NamedTuple):
    """The rules and rates of some groups, which are those of any of them.

    Args:
        rules: of these groups.
        group: one of them.
    """

    rules: Rules
    group: Group

    @property
    def period(self) -> int:
        """Gradients of so many steps are written together."""
        period: int = self.group["period"]
        return period

    def rates(self, optimizer: Adapter, *, own: bool) -> Rates:
        """With the named rule's learning rate (``own``), or that of the element-wise rule."""
        group = self.group
        return Rates(optimizer.rate(group, own=own), group["weight_decay"], bool(group["maximize"]))


_AGREED = itemgetter("lr", "weight_decay", "elementwise_lr", "maximize", "period")
"""Besides the rules, what has to be equal; and where the element-wise rule has its own lr, what that began with."""


def agreed(optimizer: Adapter) -> tuple[list[Terms], list[int]]:
    """The terms of all groups, each once, and which of them each group has.

    A learning rate that is a tensor is equal to itself alone: it may be changed in place.
    """
    numbers: dict[Hashable, int] = {}
    terms: list[Terms] = []
    which = []
    for group in optimizer.param_groups:
        rules = optimizer.rules(group)
        own = group["elementwise_lr"] is not None
        key = (id(rules), *_AGREED(group), group["elementwise_base"] if own else None)
        number = numbers.get(key)
        if number is None:
            number = numbers[key] = len(terms)
            terms.append(Terms(rules, group))
        which.append(number)
    return terms, which


@dataclass
class Due:
    """What is written in a step. The lists go together, one item a parameter, in the order of the groups.

    Args:
        parameters: what is written; all have a state.
        held: their states.
        times: how often each was written before.
        which: of ``terms``.
        terms: of all groups, each once.
        of_group: which of ``terms`` each group has.
        members: ids of the parameters that have a state, whether they are written now or not.
    """

    parameters: list[Tensor]
    held: list[Held]
    times: list[int]
    which: list[int]
    terms: Sequence[Terms]
    of_group: Sequence[int]
    members: list[int]

    def some(self, places: Sequence[int]) -> "Due":
        """The same of some of the parameters."""
        parameters, held, times, which = (
            [each[place] for place in places] for each in (self.parameters, self.held, self.times, self.which)
        )
        return Due(parameters, held, times, which, self.terms, self.of_group, self.members)  # type: ignore[arg-type]

    def rules(self, place: int) -> Rules:
        """Those that write a parameter."""
        return self.terms[self.which[place]].rules
