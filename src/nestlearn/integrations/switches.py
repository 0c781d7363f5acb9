"""Which memories of an optimizer can be switched off, and what is taken out of its rule for that."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nestlearn.descriptions.ours import behind
from nestlearn.integrations.places import ELEMENT, MATRIX
from nestlearn.optim.lanes import matrix_shape
from nestlearn.optim.optimizer import Optimizer
from nestlearn.rules.blocks import cut_of
from nestlearn.rules.link import Link, written
from nestlearn.rules.paths import removable, resolved

__all__ = ["Switch", "switches"]


@dataclass(frozen=True)
class Switch:
    """What switches a memory off.

    Args:
        part: what is taken out of the rule, as the setting ``optimizer.without`` of ``nestlearn train`` says it.
        along: the other memories that go with it, named as `nestlearn.integrations.places` names memories.
    """

    part: str
    along: tuple[str, ...] = ()


def switches(optimizer: torch.optim.Optimizer) -> dict[str, Switch]:
    """The switch of each memory that has one, by the name that `nestlearn.integrations.places` has for it.

    Of all that can be taken out of the rule and has the memory go with it, it is what takes the fewest others along. A
    memory that stays whatever is taken out has none, nor has one behind no rule of ours.

    Example:
        >>> from nestlearn.optim import Muon
        >>> optimizer = Muon([torch.nn.Parameter(torch.eye(2))])
        >>> switches(optimizer)["matrix.momentum"]
        Switch(part='momentum', along=())
    """
    found: dict[str, Switch] = {}
    if not isinstance(optimizer, Optimizer):
        return found
    for group in optimizer.param_groups:
        given = {**group, **optimizer.rule_settings(group)}
        matrix, element = optimizer.matrix_rule(given), optimizer.element_rule(given)
        for of, flat, shape in {_seen(optimizer, group, parameter) for parameter in group["params"]}:
            rule = element if flat else matrix
            if not isinstance(rule, Link):
                continue
            # Where one rule is for all its parts are said as they are; those of a partition have their own's in front.
            prefix = f"{ELEMENT}." if flat and matrix is not None else ""
            prefix += f"{own}." if (own := group.get("part", "").partition(".")[2]) else ""
            for name, switch in _of(rule, shape, of, prefix).items():
                found[name] = _both(found.get(name, switch), switch)
    return found


def _seen(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> tuple[str, bool, torch.Size]:
    """Which weights a parameter is of, whether every entry of it is alone, and the shape that its rule is for."""
    entry = optimizer.entry(parameter, group)
    shape = torch.Size() if entry.flat else torch.Size(entry.cut.shape(matrix_shape(parameter)))
    return MATRIX if entry.own_lr else ELEMENT, entry.flat, shape


def _both(one: Switch, other: Switch) -> Switch:
    """What switches a memory off that goes with different parts in different parameters."""
    parts = [*one.part.split(","), *(part for part in other.part.split(",") if part not in one.part.split(","))]
    return Switch(",".join(parts), tuple(sorted({*one.along, *other.along})))


def _of(rule: Link, shape: torch.Size, of: str, prefix: str) -> dict[str, Switch]:
    """The switches of what a rule remembers of a tensor."""
    names = _names(rule, shape)
    gone = {}
    for path in removable(rule):
        with suppress(Exception):  # a rule of one's own may not be one without it, and says so by whatever it raises
            gone[path] = names - _names(rule.without(path), shape)
    found = {}
    for name in names:
        fitting = [path for path, some in gone.items() if name in some]
        if fitting:
            part = min(fitting, key=lambda path: len(gone[path]))
            along = tuple(f"{of}.{other}" for other in sorted(gone[part] - {name}))
            found[f"{of}.{name}"] = Switch(prefix + part, along)
    return found


def _names(rule: Link, shape: torch.Size) -> set[str]:
    seen, _ = cut_of(rule)
    memories, _ = behind(written(resolved(seen)), shape, {}, 1)
    return {memory.name for memory in memories}
