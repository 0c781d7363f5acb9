"""What the parts of the ``torch.optim`` adapter know of it: whose state it is, and which rule writes a parameter.

``Optimizer`` is made of these parts and has them all; a part sees no more of it than what stands here.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from nestlearn.memory.rules import Rule
from nestlearn.memory.times import Scalar
from nestlearn.optim.composed import Rules
from nestlearn.optim.lanes import Entry
from nestlearn.optim.settings import Group
from nestlearn.optim.stacks import States
from nestlearn.rules import Link

__all__ = ["Adapter", "Observations", "Watcher"]

Observations = dict[str, dict[Tensor, Tensor]]
"""What is measured before a step: name -> parameter -> tensor."""


class Watcher(Protocol):
    """Whatever watches layers for an adapter."""

    def follow(self) -> None:
        """Look for the matrices of a group that has come since."""

    def turned(self, parameter: Tensor) -> bool:
        """Whether a layer stores this weight as [in, out]."""

    def waiting(self, parameter: Tensor, group: Group, device: torch.device | str | None) -> dict[str, Tensor]:
        """What a state holds of the layer's records until the end of a period."""


class Adapter(Protocol):
    """An optimizer that writes weights by rules; ``nestlearn.optim.Optimizer`` says more of each member."""

    param_groups: list[Group]
    defaults: Group
    declared: tuple[str, ...]
    compiles: bool

    @property
    def state(self) -> States:
        """What is kept for each parameter; empty for one that is new."""

    @property
    def layers(self) -> Watcher | None:
        """What watches the layers of the model."""

    def check_group(self, group: Group) -> None:
        """Raise ValueError for settings that do not fit."""

    def matrix_rule(self, group: Group) -> Link | Rule | None:
        """The rule for matrices; None gives them the other one."""

    def element_rule(self, group: Group) -> Link | Rule:
        """The rule for single entries."""

    def rule_settings(self, group: Group) -> Group:
        """The settings that the rules of a group are made from."""

    def rules(self, group: Group) -> Rules:
        """The rules of a group."""

    def rate(self, group: Group, *, own: bool) -> Scalar:
        """The learning rate in force: the named rule's own, or that of the element-wise rule."""

    def links(self, group: Group) -> tuple[Link, ...]:
        """Every link of the rule for matrices."""

    def reads(self, group: Group) -> Mapping[str, frozenset[int]]:
        """What that rule looks at besides gradients, and every how many writes."""

    def entry(self, parameter: Tensor, group: Group) -> Entry:
        """The rule that writes a parameter, and how."""

    def entry_of(self, parameter: Tensor, rules: Rules) -> Entry:
        """The same when the rules of its group are known."""

    def is_elementwise(self, parameter: Tensor) -> bool:
        """Whether a parameter follows the element-wise rule by choice."""

    def give_elementwise(self, parameters: Sequence[Tensor]) -> None:
        """Have these follow the element-wise rule."""

    def taken(self, parameter: Tensor) -> int:
        """How many steps a parameter has taken."""

    def spread(self, wholes: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """The part on this rank of tensors as large as a parameter: (parameter, tensor)."""

    def fresh_state(
        self, parameter: Tensor, group: Group, device: torch.device | str | None = None
    ) -> dict[str, Tensor]:
        """What ``state[parameter]`` holds before the first write."""
