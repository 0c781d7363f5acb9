"""A plan: what the steps of an optimizer are derived from.

It sorts the parameters that are written into lanes, over all groups whose rules and rates are the same, and keeps the
stacks of their memories. All of it follows from the groups, the parameters and ``state``; a plan compares these with
what it has seen before it is used, so forgetting it costs time and changes nothing.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nestlearn.optim import states
from nestlearn.optim.adapter import Adapter
from nestlearn.optim.checks import describe, whole_matrices
from nestlearn.optim.compiled import CompiledLanes, Written, compile_lanes
from nestlearn.optim.composed import Rules
from nestlearn.optim.counts import Counts
from nestlearn.optim.due import Due, Terms
from nestlearn.optim.fused import Bound, FusedLane, bind
from nestlearn.optim.lanes import SMALL, Lane
from nestlearn.optim.stacks import Stack
from nestlearn.rules.blocks import Cut
from nestlearn.rules.kernels import fits

__all__ = ["Kind", "Plan", "kind_of"]


class Kind(NamedTuple):
    """What parameters have in common whose memories lie in one stack.

    Args:
        structure: of the settings, what decides which memories there are, as a number.
        flat: whether the rule is element-wise.
        dtype, device: of the parameters.
        cut: how matrices are cut.
        form: the shape of a matrix, or of each of its blocks; of entries None, or the parameter's own id if there are
            many; True for those that a kernel of torch's writes, which needs no stack.
    """

    structure: int
    flat: bool
    dtype: torch.dtype
    device: torch.device
    cut: Cut
    form: torch.Size | int | bool | None

    @property
    def fused(self) -> bool:
        """Whether a kernel of torch's writes them."""
        return self.form is True


def kind_of(optimizer: Adapter, parameter: Tensor, rules: Rules) -> tuple[Kind, bool]:
    """The kind of a parameter whose group has these rules, and whether its lr is the named rule's."""
    entry = optimizer.entry_of(parameter, rules)
    form: torch.Size | int | bool | None = None
    if not entry.flat:
        form = torch.Size(entry.shape)
    elif rules.kernel is not None and fits(rules.kernel, parameter):
        form = True
    elif parameter.numel() >= SMALL:
        form = id(parameter)
    return Kind(rules.structure, entry.flat, parameter.dtype, parameter.device, entry.cut, form), entry.own_lr


_Facts = tuple[int, torch.dtype, torch.device, torch.Size, bool]
"""What of a parameter decides its kind, besides the rules of its group."""

_Seen = tuple[list[int], list[int], list[torch.dtype], list[torch.device], list[torch.Size], list[bool]]
"""Which terms parameters have, and facts of them in columns, which are made and compared quickly."""


class _Sorted(NamedTuple):
    """A parameter as it was when it was last sorted: its id is its own as long as somebody has it."""

    parameter: Tensor
    facts: _Facts
    rules: Rules
    kind: Kind
    own_lr: bool


class Plan:
    """The lanes and stacks of an optimizer, and its step counts."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._stacks: dict[Kind, Stack] = {}
        self._homes: dict[int, Kind] = {}
        self._members: list[int] = []
        self._seen: _Seen | None = None
        self._rules: list[Rules] = []
        self._sorted: dict[int, _Sorted] = {}
        self._bound: dict[int, Bound] = {}
        self._lanes: list[Lane | FusedLane] = []
        self._order: list[list[int]] = []
        self._compiled: list[CompiledLanes] = []

    def lanes(self, optimizer: Adapter, due: Due) -> Written:
        """Lanes that together write what is due, and which of the parameters each lane writes, by place in the list."""
        parameters = due.parameters
        seen: _Seen = (
            due.which,
            list(map(id, parameters)),
            [parameter.dtype for parameter in parameters],
            [parameter.device for parameter in parameters],
            [parameter.shape for parameter in parameters],
            list(map(Tensor.is_contiguous, parameters)),
        )
        rules = [each.rules for each in due.terms]
        alike = self._members == due.members and _same(rules, self._rules)
        if not alike or seen != self._seen or not self._hold(optimizer, due):
            if self._members != due.members:
                self._forget_others(due.members)
            self._arrange(optimizer, due, list(zip(*seen[1:], strict=True)))
            self._seen, self._rules = seen, rules
        written: Written = list(zip(self._lanes, self._order, strict=True))
        return compile_lanes(optimizer, due, written, self._compiled) if optimizer.compiles else written

    def _forget_others(self, members: list[int]) -> None:
        """Keep nothing of parameters that have gone."""
        self._members, present = members, set(members)
        self._sorted = {number: each for number, each in self._sorted.items() if number in present}
        self._bound = {number: each for number, each in self._bound.items() if number in present}

    def _hold(self, optimizer: Adapter, due: Due) -> bool:
        """Whether the lanes of the last step still stand for the state."""
        for lane, order in zip(self._lanes, self._order, strict=True):
            if isinstance(lane, FusedLane):
                if not lane.holds([due.held[place] for place in order]):
                    return False
            elif not lane.together([due.times[place] for place in order]) or not lane.holds(optimizer.state):
                return False
        return True

    def _arrange(self, optimizer: Adapter, due: Due, facts: list[_Facts]) -> None:
        kinds = [self._sort(optimizer, due, place, own) for place, own in enumerate(facts)]
        stale = self._stale(optimizer, kinds)
        if stale or any(each.kind.fused and each.facts[0] not in self._bound for each in kinds):
            whole_matrices(optimizer)  # a model may be wrapped after its optimizer was made
        if stale:
            self._restack(optimizer, due, stale)
        grouped: dict[tuple[int, bool, Kind], list[int]] = {}
        one_rate = [each.group["elementwise_lr"] is None for each in due.terms]
        for place, (number, (_, _, _, kind, own_lr)) in enumerate(zip(due.which, kinds, strict=True)):
            grouped.setdefault((number, own_lr or one_rate[number], kind), []).append(place)
        self._lanes, self._order = [], []
        for (number, own_lr, kind), places in grouped.items():
            if kind.fused:
                self._fuse(optimizer, due, number, own_lr, places)
            else:
                self._lane(due, number, own_lr, kind, places)

    def _sort(self, optimizer: Adapter, due: Due, place: int, facts: _Facts) -> _Sorted:
        """The kind of a parameter, looked up where nothing has changed."""
        parameter, rules = due.parameters[place], due.rules(place)
        known = self._sorted.get(facts[0])
        if known is None or known.rules is not rules or known.facts != facts:
            kind, own_lr = kind_of(optimizer, parameter, rules)
            if known is None or known.facts != facts or known.kind != kind:
                self._bound.pop(facts[0], None)
            known = self._sorted[facts[0]] = _Sorted(parameter, facts, rules, kind, own_lr)
        return known

    def _fuse(self, optimizer: Adapter, due: Due, number: int, own_lr: bool, places: list[int]) -> None:
        """Make the lane of parameters that a kernel writes."""
        terms, parameters = due.terms[number], [due.parameters[place] for place in places]
        held = [due.held[place] for place in places]
        kernel = terms.rules.kernel
        assert kernel is not None, "what is fused has a kernel"

        def made() -> FusedLane:
            bound = [self._bound[id(parameter)] for parameter in parameters]
            return FusedLane(kernel, parameters, bound, own_lr=own_lr, which=number)

        lane = made() if self._bound.keys() >= set(map(id, parameters)) else None
        if lane is None or not lane.holds(held):
            layouts: dict[torch.Size, dict[str, Tensor]] = {}
            for parameter, state in zip(parameters, held, strict=True):
                if parameter.shape not in layouts:
                    layouts[parameter.shape] = states.layout(optimizer, parameter, terms.group)
                misfit = _misfit(optimizer, parameter, layouts[parameter.shape], {id(parameter)})
                if misfit:
                    raise RuntimeError(misfit)
                self._bound[id(parameter)] = bind(kernel, parameter, state)
            lane = made()
        self._lanes.append(lane)
        self._order.append(places)

    def _lane(self, due: Due, number: int, own_lr: bool, kind: Kind, places: list[int]) -> None:
        """Make the lanes of parameters of one kind: one, unless their times do not go together."""
        stack, rules = self._stacks[kind], due.terms[number].rules
        rule = rules.for_entries if kind.flat else rules.for_matrices
        assert rule is not None, "an entry that is not flat has a matrix rule"
        schedule = rules.schedule(kind.form if isinstance(kind.form, torch.Size) else None)
        happens = {time: schedule(time) for time in {due.times[place] for place in places}}
        alike: dict[Hashable, list[int]] = {}
        for place in places:
            alike.setdefault(happens[due.times[place]], []).append(place)
        for some in alike.values():
            some.sort(key=lambda place: stack.places[id(due.parameters[place])])
            own = [stack.places[id(due.parameters[place])] for place in some]
            sees = rules.sees_weights(flat=kind.flat)
            self._lanes.append(Lane(rule, stack, own, own_lr, number, sees, schedule, kind.cut))
            self._order.append(some)

    def _stale(self, optimizer: Adapter, kinds: list[_Sorted]) -> set[Kind]:
        """The kinds whose stacks are not there, or do not hold what they should."""
        stale = set()
        for parameter, _, _, kind, _ in kinds:
            home = self._homes.get(id(parameter))
            if home is not None and home != kind:
                stale.add(home)
            if kind.fused:
                continue
            stack = self._stacks.get(kind)
            place = None if stack is None else stack.places.get(id(parameter))
            if stack is None or place is None or not stack.holds(place, optimizer.state):
                stale.add(kind)
        present = set(self._members)
        stale |= {kind for kind, stack in self._stacks.items() if not present.issuperset(stack.places)}
        return stale

    def _restack(self, optimizer: Adapter, due: Due, stale: set[Kind]) -> None:
        """Make the stacks of these kinds anew, over all parameters that have a state.

        Those that are not written now, and have a state that does not fit (put away on another device, say), stay out.
        """
        written = {id(parameter) for parameter in due.parameters}
        members: dict[Kind, list[Tensor]] = {}
        layouts: dict[tuple[Kind, torch.Size], dict[str, Tensor]] = {}
        for parameter, terms in _with_state(optimizer, due):
            kind, _ = kind_of(optimizer, parameter, terms.rules)
            if kind not in stale or kind.fused:
                continue
            if (kind, parameter.shape) not in layouts:
                layouts[kind, parameter.shape] = states.layout(optimizer, parameter, terms.group)
            misfit = _misfit(optimizer, parameter, layouts[kind, parameter.shape], written)
            if misfit and id(parameter) in written:
                raise RuntimeError(misfit)
            if not misfit:
                members.setdefault(kind, []).append(parameter)
        old = {kind: self._stacks.pop(kind) for kind in stale if kind in self._stacks}
        self._homes = {number: kind for number, kind in self._homes.items() if kind not in old}
        for kind, alike in members.items():
            layout = layouts[kind, alike[0].shape]
            dtypes = {name: leaf.dtype for name, leaf in layout.items()}
            stack = self._stacks[kind] = Stack(alike, dtypes, flat=kind.flat)
            stack.bind(optimizer.state)
            self._homes.update({id(parameter): kind for parameter in alike})
        kept = {id(parameter) for alike in members.values() for parameter in alike}
        for stack in old.values():
            stack.release(optimizer.state, kept)


def _same(one: Sequence[object], two: Sequence[object]) -> bool:
    return len(one) == len(two) and all(own is other for own, other in zip(one, two, strict=True))


def _with_state(optimizer: Adapter, due: Due) -> Iterator[tuple[Tensor, Terms]]:
    """Every parameter that has a state, and the terms of its group."""
    for group, number in zip(optimizer.param_groups, due.of_group, strict=True):
        for parameter in group["params"]:
            if "step" in optimizer.state.get(parameter, ()):
                yield parameter, due.terms[number]


def _misfit(optimizer: Adapter, parameter: Tensor, layout: Mapping[str, Tensor], written: set[int]) -> str:
    """What a state lacks of the memories that a rule needs, or holds in another shape, and the remedy; "" if nothing.

    Of a parameter that is written now the device does not count: its state follows it there.
    """
    state = optimizer.state[parameter]
    for name, expected in layout.items():
        leaf = state.get(name)
        if isinstance(leaf, Tensor) and leaf.shape == expected.shape:
            if leaf.device == parameter.device or id(parameter) in written:
                continue
            return f"state {name!r} is on {leaf.device}"
        got = f"has shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else f"is {type(leaf).__name__}"
        return (
            f"{type(optimizer).__name__}: {describe(optimizer, parameter)}: state {name!r} "
            f"{got if name in state else 'is missing'}, expected shape {tuple(expected.shape)}. Where settings or the "
            "parameter's shape have changed, start anew: optimizer.state[parameter].clear()"
        )
    return ""
