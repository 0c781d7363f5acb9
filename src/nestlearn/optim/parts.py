"""Parameters that are sharded (DTensor: FSDP2, HSDP, tensor parallelism), as the rules of an optimizer see them.

A rule that acts on every entry alone sees the part of a parameter that lies on this rank, and its memories are sharded
as the parameter is. A rule for matrices sees the whole of it: parts of weight and gradient are gathered for the step,
all ranks write the same, each keeps its part, and what the rule remembers is whole on every rank.

Everything that writes (plans, lanes, stacks) works with plain tensors: those that stand here for the parameters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nestlearn.memory.rules import Rule
from nestlearn.memory.times import Scalar
from nestlearn.optim import states
from nestlearn.optim.adapter import Adapter, Observations, Watcher
from nestlearn.optim.composed import Rules
from nestlearn.optim.lanes import Entry
from nestlearn.optim.settings import Group, Settings
from nestlearn.optim.sharded import alike, gathered, is_sharded, local, sharded_alike, whole
from nestlearn.optim.stacks import Held, States
from nestlearn.rules import Link

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["Parts"]


@dataclass
class _Standing:
    """What stands for a sharded parameter: its part, or a whole matrix whose storage is empty between steps.

    Attributes:
        parameter: the sharded one.
        tensor: what rules see.
        flat: whether it is the part.
        shown: what the state of the parameter was last seen to hold, and what stands for it.
    """

    parameter: DTensor
    tensor: Tensor
    flat: bool
    shown: dict[str, tuple[object, Tensor]] = field(default_factory=dict)

    def holds(self, flat: bool) -> bool:
        """Whether it still stands for the parameter."""
        here = self.parameter.to_local()
        if flat != self.flat or self.tensor.dtype != here.dtype or self.tensor.device != here.device:
            return False
        return not flat or (self.tensor.data_ptr() == here.data_ptr() and self.tensor.shape == here.shape)

    def fill(self, weight: Tensor | None, gradient: Tensor | None) -> None:
        """Have weight and gradient here: of a matrix the whole of both, given where it has a gradient."""
        if self.flat:
            slope = self.parameter.grad
            self.tensor.grad = None if slope is None else local(alike(slope, self.parameter))
            return
        size = self.tensor.numel() * self.tensor.element_size()
        self.tensor.untyped_storage().resize_(0 if gradient is None else size)
        if weight is not None:
            self.tensor.copy_(weight)
        self.tensor.grad = gradient

    def give_back(self) -> None:
        """Keep the part of what was written; the rest goes."""
        if not self.flat and self.tensor.grad is not None:
            self.parameter.to_local().copy_(local(alike(self.tensor, self.parameter)))
            self.tensor.untyped_storage().resize_(0)
        self.tensor.grad = None

    def shown_as(self, name: str, leaf: Tensor) -> Tensor:
        """A memory as the state of the parameter has it: sharded where its rule sees parts."""
        if not self.flat or leaf.shape != self.tensor.shape or name == "step":
            return leaf
        return sharded_alike(leaf, self.parameter)

    def stands_for(self, name: str, leaf: Tensor) -> Tensor:
        """The opposite, whoever put the memory there, sharded in another way or not at all."""
        if not self.flat or leaf.shape != self.parameter.shape or name == "step":
            return whole(leaf)
        return local(alike(leaf, self.parameter))


class Parts:
    """An optimizer (``Adapter``) of which what is sharded is stood for by plain tensors.

    Args:
        optimizer: whose parameters, groups and states they are.
    """

    def __init__(self, optimizer: Adapter) -> None:
        self._optimizer = optimizer
        self._standing: dict[int, _Standing] = {}
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
        for group in optimizer.param_groups:
            rules = optimizer.rules(group)
            tensors = [self._stand_in(parameter, rules, known) for parameter in group["params"]]
            for parameter, tensor in zip(group["params"], tensors, strict=True):
                if parameter in optimizer.state:
                    self.state[tensor] = self._seen(parameter)
            here = Settings(group)
            dict.__setitem__(here, "params", tensors)
            self.param_groups.append(here)
            self._groups[id(here)] = group
        self._fill()
        return self

    def end(self) -> None:
        """Give back what was written."""
        for each in self._standing.values():
            each.give_back()
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

    def _fill(self) -> None:
        """Weights and gradients, those of all matrices in one message."""
        matrices = [each for each in self._standing.values() if not each.flat and each.parameter.grad is not None]
        weights = [each.parameter.detach() for each in matrices]
        slopes = [gradient for each in matrices if (gradient := each.parameter.grad) is not None]
        found = gathered([*weights, *slopes])
        pairs = {id(each): (found[place], found[len(matrices) + place]) for place, each in enumerate(matrices)}
        for each in self._standing.values():
            each.fill(*pairs.get(id(each), (None, None)))

    def seen(self, observations: Observations) -> Observations:
        """What was observed of parameters, as of what stands for them."""
        tensors = {number: standing.tensor for number, standing in self._standing.items()}
        return {
            name: {tensors.get(id(parameter), parameter): value for parameter, value in values.items()}
            for name, values in observations.items()
        }

    def _stand_in(self, parameter: Tensor, rules: Rules, known: Mapping[int, _Standing]) -> Tensor:
        """What stands for a parameter: itself, where it is not sharded."""
        if not is_sharded(parameter):
            self._parameters[id(parameter)] = parameter
            return parameter
        flat = self._optimizer.entry_of(parameter, rules).flat
        standing = known.get(id(parameter))
        if standing is None or standing.parameter is not parameter or not standing.holds(flat):
            here = parameter.to_local()
            tensor = here.detach() if flat else torch.empty(parameter.shape, dtype=here.dtype, device=here.device)
            standing = _Standing(parameter, tensor, flat)
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
            if name not in standing.shown or standing.shown[name][0] is not value:
                standing.shown[name] = value, standing.stands_for(name, value)
            found[name] = standing.shown[name][1]
        return found

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
