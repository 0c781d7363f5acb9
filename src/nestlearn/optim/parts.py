"""Parameters that are sharded (DTensor: FSDP2, HSDP, tensor parallelism), as the rules of an optimizer see them.

A rule that acts on every entry alone sees the part of a parameter that lies on this rank, and its memories are sharded
as the parameter is. A rule for matrices sees the whole of it, on the one rank that owns the matrix: gradients are sent
there in one message, the rule writes and keeps what it remembers, and in a second message everybody is sent what to add
to its part. Where a matrix is sharded in several ways, all ranks gather it and write the same.

Everything that writes (plans, lanes, stacks) works with plain tensors: those that stand here for the parameters. What
another rank owns has no gradient here, and is passed by as a parameter without one is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nestlearn.memory.rules import Rule
from nestlearn.memory.times import Scalar
from nestlearn.optim import states
from nestlearn.optim.adapter import Adapter, Observations, Watcher
from nestlearn.optim.checks import describe
from nestlearn.optim.composed import Rules
from nestlearn.optim.due import Terms
from nestlearn.optim.exchange import Piece, from_owners, to_owners
from nestlearn.optim.lanes import Entry
from nestlearn.optim.owners import Owners
from nestlearn.optim.settings import Group, Settings
from nestlearn.optim.sharded import alike, is_sharded, local, whole
from nestlearn.optim.shares import Owned, collected, shared
from nestlearn.optim.stacks import Held, States
from nestlearn.optim.standing import EVERYWHERE, Standing, absent
from nestlearn.rules import Link

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["Parts"]


class Parts:
    """An optimizer (``Adapter``) of which what is sharded is stood for by plain tensors.

    Args:
        optimizer: whose parameters, groups and states they are.
        owners: which rank has the memories of which matrix.
    """

    def __init__(self, optimizer: Adapter, owners: Owners) -> None:
        self._optimizer = optimizer
        self._owners = owners
        self._standing: dict[int, Standing] = {}
        self._written: list[Standing] = []
        self._parameters: dict[int, Tensor] = {}
        self._groups: dict[int, Group] = {}
        self.param_groups: list[Group] = []
        self.state: States = defaultdict(dict)
        self.defaults: Group = {}
        self.declared: tuple[str, ...] = ()
        self.compiles = False
        # What layers have seen is whole, and has been measured by now.
        self.layers: Watcher | None = None

    def begin(self) -> Parts:
        """Have weights, gradients and memories here."""
        optimizer = self._optimizer
        self.defaults, self.declared, self.compiles = optimizer.defaults, optimizer.declared, optimizer.compiles
        known, self._standing, self._parameters, self._groups = self._standing, {}, {}, {}
        self.param_groups, self.state = [], defaultdict(dict)
        matrices = {id(parameter): piece for parameter, _, piece in self._matrices()}
        for group in optimizer.param_groups:
            rules = optimizer.rules(group)
            tensors = [self._stand_in(parameter, group, rules, known, matrices) for parameter in group["params"]]
            here = Settings(group)
            dict.__setitem__(here, "params", tensors)
            self.param_groups.append(here)
            self._groups[id(here)] = group
        self._collect([each for number, each in self._standing.items() if known.get(number) is not each])
        for group, own in zip(self.param_groups, optimizer.param_groups, strict=True):
            for tensor, parameter in zip(group["params"], own["params"], strict=True):
                standing = self._standing.get(id(parameter))
                if parameter in optimizer.state and (standing is None or standing.here):
                    self.state[tensor] = self._seen(parameter)
        self._fill()
        return self

    def end(self) -> None:
        """Give back what was written."""
        self._count_elsewhere()
        self._give_back()
        for tensor, held in self.state.items():
            parameter = self._parameters[id(tensor)]
            standing = self._standing.get(id(parameter))
            if standing is None:
                self._optimizer.state[parameter] = held
                continue
            state = self._optimizer.state[parameter]
            for name, leaf in held.items():
                if not isinstance(leaf, Tensor):
                    state[name] = leaf
                elif name not in standing.shown or standing.shown[name][1] is not leaf:
                    state[name] = standing.shown_as(name, leaf)
                    standing.shown[name] = state[name], leaf
            for name in [name for name in state if name not in held]:
                del state[name]
        for each in self._standing.values():
            each.empty()

    def _fill(self) -> None:
        """Gradients, and weights where they are asked for: one message for all matrices that have an owner."""
        for each in self._standing.values():
            if each.flat:
                each.fill_part()
        self._written = [each for each in self._standing.values() if not each.flat and each.parameter.grad is not None]
        owned = [(each, each.piece) for each in self._written if each.piece is not None]
        weighed = [(each, piece) for each, piece in owned if each.sends_weight]
        parts = [local(alike(_gradient(each.parameter), each.parameter)) for each, _ in owned]
        parts += [each.parameter.to_local() for each, _ in weighed]
        found = to_owners(parts, [piece for _, piece in [*owned, *weighed]])
        weights = {id(each): weight for (each, _), weight in zip(weighed, found[len(owned) :], strict=True)}
        for (each, _), gradient in zip(owned, found, strict=False):
            if gradient is not None:
                each.fill(weights.get(id(each)), gradient)
        for each in self._written:
            if each.piece is None:
                each.fill(whole(each.parameter.detach()), whole(_gradient(each.parameter)))

    def _give_back(self) -> None:
        """Every rank's part of the matrices that were written."""
        owned = [(each, each.piece) for each in self._written if each.piece is not None]
        parts: list[Tensor] = []
        if owned:
            wholes = [each.tensor if each.here else None for each, _ in owned]
            parts = from_owners(wholes, [piece for _, piece in owned], owned[0][0].parameter.to_local().device)
        weights, added = [], []
        for (each, _), part in zip(owned, parts, strict=True):
            weight = each.parameter.to_local()
            if each.sends_weight:
                weight.copy_(part)
                continue
            retention = Terms(self._optimizer.rules(each.group), each.group).rates(self._optimizer, own=True).retention
            if self._is_due(each) and (isinstance(retention, Tensor) or retention != 1.0):
                weight.mul_(retention)
            weights.append(weight)
            added.append(part)
        if weights:
            torch._foreach_add_(weights, added)
        for each in self._written:
            if each.piece is None:
                each.parameter.to_local().copy_(local(alike(each.tensor, each.parameter)))

    def _is_due(self, standing: Standing) -> bool:
        """Whether a matrix was written in this step, which is counted already."""
        period = int(standing.group["period"])
        if period == 1:
            return True
        held = self.state[standing.tensor] if standing.here else self._optimizer.state[standing.parameter]
        return int(held["step"]) % period == 0

    def _count_elsewhere(self) -> None:
        """Count the step of what other ranks write, and keep no more than the names and shapes of its memories."""
        counts = []
        for each in self._written:
            if each.here:
                continue
            state = self._optimizer.state[each.parameter]
            if "step" not in state:
                state.update(self._optimizer.fresh_state(each.parameter, each.group, device="meta"))
            if each.entries != len(state):  # new, or somebody has put something there
                absent(state, self._memories(each.parameter, each.group))
                each.entries = len(state)
            counts.append(state["step"])
        if counts:
            torch._foreach_add_(counts, 1)

    def seen(self, observations: Observations) -> Observations:
        """What was observed of parameters, as of what stands for them."""
        tensors = {number: standing.tensor for number, standing in self._standing.items()}
        return {
            name: {tensors.get(id(parameter), parameter): value for parameter, value in values.items()}
            for name, values in observations.items()
        }

    def _stand_in(
        self,
        parameter: Tensor,
        group: Group,
        rules: Rules,
        known: Mapping[int, Standing],
        matrices: Mapping[int, Piece | None],
    ) -> Tensor:
        """What stands for a parameter: itself, where it is not sharded."""
        if not is_sharded(parameter):
            self._parameters[id(parameter)] = parameter
            return parameter
        flat, piece = id(parameter) not in matrices, matrices.get(id(parameter))
        standing = known.get(id(parameter))
        if standing is None or standing.parameter is not parameter or not standing.holds(flat, piece):
            here = parameter.to_local()
            tensor = here.detach() if flat else torch.empty(parameter.shape, dtype=here.dtype, device=here.device)
            standing = Standing(parameter, tensor, flat, piece)
            standing.empty()
        standing.group, standing.sends_weight = group, not rules.adds
        self._standing[id(parameter)] = standing
        self._parameters[id(standing.tensor)] = parameter
        return standing.tensor

    def _seen(self, parameter: Tensor) -> Held:
        """The state of a parameter, with what stands for its memories."""
        state, standing = self._optimizer.state[parameter], self._standing.get(id(parameter))
        if standing is None:
            return state
        found: Held = {}
        for name, value in state.items():
            if not isinstance(value, Tensor):
                found[name] = value
                continue
            if value.is_meta and not standing.parameter.is_meta:
                raise RuntimeError(
                    f"{type(self._optimizer).__name__}: {describe(self._optimizer, parameter)}: another rank has "
                    f"{name!r}, and this one is to write it now. Load a state_dict, or start anew: "
                    "optimizer.state.clear()"
                )
            if name not in standing.shown or standing.shown[name][0] is not value:
                standing.shown[name] = value, standing.stands_for(name, value)
            found[name] = standing.shown[name][1]
        return found

    # ------------------------------------------------------------------------- what is remembered, on and for all ranks

    def _collect(self, new: Sequence[Standing]) -> None:
        """Bring memories that were loaded where they are owned."""
        state = self._optimizer.state
        owned = [
            (state[each.parameter], each.piece, self._memories(each.parameter, each.group))
            for each in new
            if each.piece is not None and each.parameter in state
        ]
        if owned:
            collected(owned)

    def shown(self) -> States:
        """The optimizer's state with a share of what owners remember, on every rank that shares the matrices."""
        held = self._optimizer.state
        owned: list[Owned] = []
        parameters: list[Tensor] = []
        for parameter, group, piece in self._matrices():
            if piece is not None and held.get(parameter):
                parameters.append(parameter)
                owned.append((held[parameter], piece, self._memories(parameter, group)))
        if not owned:
            return held
        found = dict(zip(parameters, shared(owned, local(parameters[0]).device), strict=True))
        return defaultdict(dict, {parameter: found.get(parameter, own) for parameter, own in held.items()})

    def spread(self, wholes: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """The part on this rank of tensors that lie whole where a parameter of their shape is owned.

        Args:
            wholes: (parameter, tensor); of another rank's the tensor is not looked at.
        """
        pieces = {id(parameter): piece for parameter, _, piece in self._matrices() if piece is not None}
        owned = [(pieces[id(parameter)], tensor) for parameter, tensor in wholes if id(parameter) in pieces]
        parts: Iterator[Tensor] = iter(())
        if owned:
            own = [tensor if piece.mine else None for piece, tensor in owned]
            forms = [piece._replace(dtype=tensor.dtype) for piece, tensor in owned]
            parts = iter(from_owners(own, forms, local(wholes[0][0]).device))
        return [
            next(parts) if id(parameter) in pieces else local(alike(tensor, parameter)) for parameter, tensor in wholes
        ]

    def _matrices(self) -> list[tuple[DTensor, Group, Piece | None]]:
        """Every sharded matrix, its group, and the rank that owns it, if one does."""
        found: list[tuple[DTensor, Group]] = []
        for group in self._optimizer.param_groups:
            rules = self._optimizer.rules(group)
            for parameter in group["params"]:
                if is_sharded(parameter) and not self._optimizer.entry_of(parameter, rules).flat:
                    found.append((parameter, group))
        pieces = self._owners.pieces([parameter for parameter, _ in found])
        return [(parameter, group, piece) for (parameter, group), piece in zip(found, pieces, strict=True)]

    def _memories(self, parameter: Tensor, group: Group) -> frozenset[str]:
        """What the state of a matrix has where it is owned."""
        return frozenset(self._optimizer.fresh_state(parameter, group, device="meta")) - set(EVERYWHERE)

    # ------------------------------------------------------------------------ everything else is the optimizer's own

    def check_group(self, group: Group) -> None:
        self._optimizer.check_group(group)

    def matrix_rule(self, group: Group) -> Link | Rule | None:
        return self._optimizer.matrix_rule(group)

    def element_rule(self, group: Group) -> Link | Rule:
        return self._optimizer.element_rule(group)

    def rule_settings(self, group: Group) -> Group:
        return self._optimizer.rule_settings(self._own(group))

    def rules(self, group: Group) -> Rules:
        return self._optimizer.rules(self._own(group))

    def rate(self, group: Group, *, own: bool) -> Scalar:
        return self._optimizer.rate(group, own=own)

    def links(self, group: Group) -> tuple[Link, ...]:
        return self._optimizer.links(self._own(group))

    def reads(self, group: Group) -> Mapping[str, frozenset[int]]:
        return self._optimizer.reads(self._own(group))

    def entry(self, parameter: Tensor, group: Group) -> Entry:
        return self.entry_of(parameter, self.rules(group))

    def entry_of(self, parameter: Tensor, rules: Rules) -> Entry:
        return self._optimizer.entry_of(self._parameters[id(parameter)], rules)._replace(parameter=parameter)

    def is_elementwise(self, parameter: Tensor) -> bool:
        return self._optimizer.is_elementwise(self._parameters[id(parameter)])

    def give_elementwise(self, parameters: Sequence[Tensor]) -> None:
        self._optimizer.give_elementwise([self._parameters[id(parameter)] for parameter in parameters])

    def taken(self, parameter: Tensor) -> int:
        return self._optimizer.taken(self._parameters[id(parameter)])

    def fresh_state(
        self, parameter: Tensor, group: Group, device: torch.device | str | None = None
    ) -> dict[str, Tensor]:
        return states.fresh(self, parameter, group, device)

    def _own(self, group: Group) -> Group:
        return self._groups.get(id(group), group)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "only what has a gradient is written"
    return parameter.grad
