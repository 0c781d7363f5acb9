"""What the parts of the ``torch.optim`` adapter know of it: whose state it is, and which rule writes a parameter.

``Optimizer`` is made of these parts and has them all; a part sees no more of it than what stands here.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from nestlearn.memory.rules import Rule
from nestlearn.optim.composed import Rules
from nestlearn.optim.lanes import Entry
from nestlearn.rules import Link

__all__ = ["Adapter", "Watcher"]


class Watcher(Protocol):
    """Whatever watches layers for an adapter."""

    def follow(self) -> None:
        """Look for the matrices of a group that has come since."""

    def waiting(
        self, parameter: Tensor, group: Mapping[str, Any], device: torch.device | str | None
    ) -> dict[str, Tensor]:
        """What a state holds of the layer's records until the end of a period."""


class Adapter(Protocol):
    """An optimizer that writes weights by rules; ``nestlearn.optim.Optimizer`` says more of each member."""

    state: Any
    param_groups: list[dict[str, Any]]
    defaults: dict[str, Any]
    declared: tuple[str, ...]
    compiles: bool

    @property
    def layers(self) -> Watcher | None:
        """What watches the layers of the model."""

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for settings that do not fit."""

    def element_rule(self, group: dict[str, Any]) -> Link | Rule:
        """The rule for single entries."""

    def rule_settings(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that the rules of a group are made from."""

    def rules(self, group: Mapping[str, Any]) -> Rules:
        """The rules of a group."""

    def links(self, group: Mapping[str, Any]) -> tuple[Link, ...]:
        """Every link of the rule for matrices."""

    def reads(self, group: Mapping[str, Any]) -> Mapping[str, frozenset[int]]:
        """What that rule looks at besides gradients, and every how many writes."""

    def entry(self, parameter: Tensor, group: dict[str, Any]) -> Entry:
        """The rule that writes a parameter, and how."""

    def entry_of(self, parameter: Tensor, rules: Rules) -> Entry:
        """The same when the rules of its group are known."""

    def is_elementwise(self, parameter: Tensor) -> bool:
        """Whether a parameter follows the element-wise rule by choice."""

    def taken(self, parameter: Tensor) -> int:
        """How many steps a parameter has taken."""

    def fresh_state(
        self, parameter: Tensor, group: dict[str, Any], device: torch.device | str | None = None
    ) -> dict[str, Tensor]:
        """What ``state[parameter]`` holds before the first write."""
