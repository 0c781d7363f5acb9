"""A plan: what the steps of one parameter group are derived from.

It sorts the parameters that are written into lanes and keeps the stacks of their memories. All of it follows from the
group, the parameters and ``state``; a plan compares these with what it has seen before it is used, so forgetting one
costs time and changes nothing.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nestlearn.memory.rules import Rule
from nestlearn.optim import states
from nestlearn.optim.adapter import Adapter
from nestlearn.optim.checks import describe, whole_matrices
from nestlearn.optim.compiled import CompiledLanes, Written, compile_lanes
from nestlearn.optim.composed import Rules
from nestlearn.optim.lanes import SMALL, Lane
from nestlearn.optim.settings import Group, structure
from nestlearn.optim.stacks import Stack

__all__ = ["Plan"]


class _Kind(NamedTuple):
    """What parameters have in common whose memories lie in one stack."""

    flat: bool
    own_lr: bool
    dtype: torch.dtype
    device: torch.device
    form: tuple[int, ...] | int | None
    """The shape of a matrix or of its blocks; of entries None, or the parameter's own id if there are many."""


class Plan:
    """The lanes and stacks of one parameter group of an optimizer."""

    def __init__(self) -> None:
        self._stacks: dict[_Kind, Stack] = {}
        self._homes: dict[int, _Kind] = {}
        self._members: list[int] = []
        self._seen: list[tuple[int, torch.dtype, torch.device, torch.Size]] = []
        self._rules: Rules | None = None
        self._lanes: list[Lane] = []
        self._order: list[list[int]] = []
        self._form: dict[str, object] = {}
        self._schedules: dict[_Kind, tuple[Rule, Callable[[int], Hashable]]] = {}
        self._compiled: list[CompiledLanes] = []

    def lanes(self, optimizer: Adapter, group: Group, parameters: list[Tensor], times: Sequence[int]) -> Written:
        """Lanes that together write ``parameters``, and which of them each lane writes, by place in the list.

        Args:
            optimizer: whose group it is.
            group: the group.
            parameters: those that are written now; all have a state.
            times: how often each was written before.
        """
        rules = optimizer.rules(group)
        # Those that have a state, whether they are written now or not: what leaves takes its part of a stack with it.
        members = [id(parameter) for parameter in group["params"] if "step" in optimizer.state.get(parameter, ())]
        seen = [(id(p), p.dtype, p.device, p.shape) for p in parameters]
        if rules is not self._rules:
            self._notice_settings(optimizer, group)
        known = rules is self._rules and self._seen == seen and self._members == members
        if not known or not self._hold(optimizer, times):
            self._members = members
            self._arrange(optimizer, group, rules, parameters, times)
            self._seen, self._rules = seen, rules
        written: Written = list(zip(self._lanes, self._order, strict=True))
        return compile_lanes(optimizer, group, written, self._compiled) if optimizer.compiles else written

    def _hold(self, optimizer: Adapter, times: Sequence[int]) -> bool:
        """Whether the lanes of the last step still stand for the state."""
        return all(
            lane.together([times[number] for number in order])
            and all(lane.stack.holds(place, optimizer.state) for place in lane.places)
            for lane, order in zip(self._lanes, self._order, strict=True)
        )

    def _notice_settings(self, optimizer: Adapter, group: Group) -> None:
        """Forget everything when a setting has changed that decides what is remembered."""
        form = structure(optimizer.rule_settings(group))
        if form != self._form:
            self.release(optimizer)
            self._homes, self._schedules, self._compiled = {}, {}, []
            self._form = form

    def release(self, optimizer: Adapter) -> None:
        """Give up all stacks: what they hold becomes tensors of their own in the state."""
        for stack in self._stacks.values():
            stack.release(optimizer.state)
        self._stacks = {}

    def _arrange(
        self,
        optimizer: Adapter,
        group: Group,
        rules: Rules,
        parameters: list[Tensor],
        times: Sequence[int],
    ) -> None:
        kinds = [_kind(optimizer, parameter, rules) for parameter in parameters]
        stale = self._stale(optimizer, parameters, kinds)
        if stale:
            whole_matrices(optimizer)  # a model may be wrapped after its optimizer was made
            self._restack(optimizer, group, rules, stale, {id(parameter) for parameter in parameters})
        grouped: dict[_Kind, list[int]] = {}
        for number, kind in enumerate(kinds):
            grouped.setdefault(kind, []).append(number)
        self._lanes, self._order = [], []
        for kind, numbers in grouped.items():
            self._lane(optimizer, rules, kind, parameters, numbers, times)

    def _lane(
        self,
        optimizer: Adapter,
        rules: Rules,
        kind: _Kind,
        parameters: list[Tensor],
        numbers: list[int],
        times: Sequence[int],
    ) -> None:
        """Make the lanes of the parameters of one kind: one, unless their times do not go together."""
        stack = self._stacks[kind]
        rule = rules.for_entries if kind.flat else rules.for_matrices
        assert rule is not None, "an entry that is not flat has a matrix rule"
        schedule = self._schedule(rule, kind)
        happens = {time: schedule(time) for time in {times[number] for number in numbers}}
        alike: dict[Hashable, list[int]] = {}
        for number in numbers:
            alike.setdefault(happens[times[number]], []).append(number)
        for members in alike.values():
            members.sort(key=lambda number: stack.places[id(parameters[number])])
            places = [stack.places[id(parameters[number])] for number in members]
            looks = rules.sees_weights(flat=kind.flat)
            self._lanes.append(Lane(rule, stack, places, kind.own_lr, looks, schedule, rules.cut))
            self._order.append(members)

    def _schedule(self, rule: Rule, kind: _Kind) -> Callable[[int], Hashable]:
        known = self._schedules.get(kind)
        if known is None or known[0] is not rule:
            shape = torch.Size(kind.form) if isinstance(kind.form, tuple) else torch.Size([1])
            known = self._schedules[kind] = rule, rule.schedule(shape)
        return known[1]

    def _stale(self, optimizer: Adapter, parameters: list[Tensor], kinds: list[_Kind]) -> set[_Kind]:
        """The kinds whose stacks are not there, or do not hold what they should."""
        stale = set()
        for parameter, kind in zip(parameters, kinds, strict=True):
            stack, home = self._stacks.get(kind), self._homes.get(id(parameter))
            if home is not None and home != kind:
                stale.add(home)
            place = None if stack is None else stack.places.get(id(parameter))
            if stack is None or place is None or not stack.holds(place, optimizer.state):
                stale.add(kind)
        present = set(self._members)
        stale |= {kind for kind, stack in self._stacks.items() if not present.issuperset(stack.places)}
        return stale

    def _restack(self, optimizer: Adapter, group: Group, rules: Rules, stale: set[_Kind], written: set[int]) -> None:
        """Make the stacks of these kinds anew, over the parameters of the group that have a state.

        Those that are not ``written`` now, and have a state that does not fit (put away on another device, say), stay
        out.
        """
        members: dict[_Kind, list[Tensor]] = {}
        layouts: dict[tuple[_Kind, torch.Size], dict[str, Tensor]] = {}
        for parameter in group["params"]:
            if "step" not in optimizer.state.get(parameter, ()):
                continue
            kind = _kind(optimizer, parameter, rules)
            if kind not in stale:
                continue
            if (kind, parameter.shape) not in layouts:
                layouts[kind, parameter.shape] = states.layout(optimizer, parameter, group)
            misfit = _misfit(optimizer, parameter, layouts[kind, parameter.shape], written)
            if misfit and id(parameter) in written:
                raise RuntimeError(misfit)
            if not misfit:
                members.setdefault(kind, []).append(parameter)
        old = {kind: self._stacks.pop(kind) for kind in stale if kind in self._stacks}
        for kind, alike in members.items():
            layout = layouts[kind, alike[0].shape]
            dtypes = {name: leaf.dtype for name, leaf in layout.items()}
            stack = self._stacks[kind] = Stack(alike, dtypes, flat=kind.flat)
            stack.bind(optimizer.state)
            self._homes.update({id(parameter): kind for parameter in alike})
        self._homes = {number: self._homes[number] for number in self._members if number in self._homes}
        kept = {id(parameter) for alike in members.values() for parameter in alike}
        for stack in old.values():
            stack.release(optimizer.state, kept)


def _kind(optimizer: Adapter, parameter: Tensor, rules: Rules) -> _Kind:
    entry = optimizer.entry_of(parameter, rules)
    if not entry.flat:
        form: tuple[int, ...] | int | None = entry.shape
    else:
        form = id(parameter) if parameter.numel() >= SMALL else None
    return _Kind(entry.flat, entry.own_lr, parameter.dtype, parameter.device, form)


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
