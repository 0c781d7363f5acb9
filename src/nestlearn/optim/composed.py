"""The rules of a parameter group: made from its settings, and what they declare."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from nestlearn.memory.nesting import Consult
from nestlearn.memory.rules import Rule
from nestlearn.optim.settings import Group
from nestlearn.rules import Link, Schedule, as_rule, averaged_weights, chain, part, partition, to_data
from nestlearn.rules.averaged_weights import ends
from nestlearn.rules.blocks import Cut, blocks, cut_of
from nestlearn.rules.data import schedule_from_data
from nestlearn.rules.kernels import Kernel, recognised
from nestlearn.rules.paths import Setting

__all__ = ["Rules", "check_places", "default_settings", "number_now", "overridden", "parted", "plain", "with_average"]


@dataclass(frozen=True)
class Rules:
    """The two rules of a group as values, and what follows from them.

    Args:
        matrix: of matrices; None gives them the other one.
        element: of everything else; it acts on every entry alone.
        settings: that they were made from.
        structure: what of these decides which memories there are and what is computed, as a number.
    """

    matrix: Link | Rule | None
    element: Link | Rule
    settings: Group
    structure: int
    _schedules: dict[torch.Size | None, Callable[[int], Hashable]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for rule in (self.matrix, self.element):
            if isinstance(rule, Link):
                _check_ends(rule)

    @classmethod
    def averaging(cls, matrix: Link | Rule | None, element: Link | Rule, settings: Group, structure: int) -> "Rules":
        """Both with an average of the weights behind them, where the settings want one."""
        retention = settings["averaged_weights"]
        averaged = None if matrix is None else with_average(matrix, retention)
        return cls(averaged, with_average(element, retention), settings, structure)

    @cached_property
    def kernel(self) -> Kernel | None:
        """What of torch computes the rule for entries, if anything does."""
        return recognised(self.element)

    def schedule(self, shape: torch.Size | None) -> Callable[[int], Hashable]:
        """What happens at which time to matrices of a shape, or to entries (None)."""
        if shape not in self._schedules:
            rule = self.for_entries if shape is None else self.for_matrices
            assert rule is not None, "what is a matrix has a rule for matrices"
            self._schedules[shape] = rule.schedule(torch.Size([1]) if shape is None else shape)
        return self._schedules[shape]

    @cached_property
    def for_matrices(self) -> Rule | None:
        """What writes matrices."""
        return None if self.matrix is None else as_rule(cut_of(self.matrix)[0])

    @cached_property
    def cut(self) -> Cut:
        """How matrices are cut before their rule sees them."""
        return cut_of(self.matrix)[1]

    @cached_property
    def for_entries(self) -> Rule:
        """What writes everything else."""
        return as_rule(self.element)

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Every link of the rule for matrices; those of entries look at nothing besides gradients."""
        return tuple(self.matrix.everything()) if isinstance(self.matrix, Link) else ()

    @cached_property
    def reads(self) -> Mapping[str, frozenset[int]]:
        """What is looked at besides gradients, and every how many writes."""
        found: dict[str, set[int]] = {}
        for link in self.links:
            for name, every in link.reads.items():
                found.setdefault(name, set()).add(every)
        return {name: frozenset(paces) for name, paces in found.items()}

    def sees_weights(self, *, flat: bool) -> bool:
        """Whether the rule for entries (``flat``), or that for matrices, looks at the weights themselves."""
        if not flat:
            return "weights" in self.reads
        return isinstance(self.element, Link) and any("weights" in link.reads for link in self.element.everything())

    @cached_property
    def adds(self) -> bool:
        """Whether the rule for matrices only adds: it neither looks at weights nor says what they lose."""
        rule = self.for_matrices
        return isinstance(rule, Consult) and rule.keep is None and not self.sees_weights(flat=False)

    def average(self, *, flat: bool) -> str | None:
        """The name of the box that averages the weights of entries (``flat``), or of matrices; None is none."""
        rule = self.element if flat or self.matrix is None else self.matrix
        last = list(ends(rule)) if isinstance(rule, Link) else []
        return next((link.label for link in last if isinstance(link, averaged_weights)), None)

    @cached_property
    def smallest_side(self) -> int:
        """A parameter is a matrix when both sides have at least this many entries."""
        return min((link.smallest_side for link in self.links if link.smallest_side is not None), default=2)


def _check_ends(rule: Link) -> None:
    """Raise ValueError for an average of the weights that something comes behind."""
    last = [id(link) for link in ends(rule)]
    for link in rule.everything():
        if isinstance(link, averaged_weights) and id(link) not in last:
            raise ValueError(f"{link!r} averages the weights that a rule has written, so it is the rule's last link")


def with_average(rule: Link | Rule, retention: float | None) -> Link | Rule:
    """The rule with an average of the weights behind it, where a group wants one."""
    if retention is None:
        return rule
    if not isinstance(rule, Link):
        raise TypeError(f"averaged_weights= takes a rule of nl.rules, and this optimizer has {type(rule).__name__}")
    if isinstance(rule, blocks):
        return replace(rule, rule=_before_average(rule.rule, retention))
    return _before_average(rule, retention)


def _before_average(rule: Link, retention: float) -> Link:
    links = rule.links if isinstance(rule, chain) and rule.name is None else (rule,)
    return chain(*links, averaged_weights(retention))


def check_places(who: str, matrix: Link | None, element: Link | None) -> None:
    """Raise TypeError unless both are rules, and that for entries acts on entries."""
    for name, rule in (("matrix", matrix), ("element", element)):
        if rule is not None and not isinstance(rule, Link):
            raise TypeError(f"{who}: {name}= takes a rule such as nl.rules.adam(), got {rule!r}")
    if element is not None:
        for link in element.everything():
            if link.on_matrices:
                raise ValueError(
                    f"{who}: element= acts on every entry alone, and {link!r} is for whole matrices: pass it as matrix="
                )


def default_settings(matrix: Link | None, element: Link | None) -> Group:
    """The settings of both rules by path, those of a group that they are made from, and both as data under "rule"."""
    pairs = [(place, rule) for place, rule in (("matrix", matrix), ("element", element)) if rule is not None]
    found: Group = {"rule": {place: to_data(rule, functions=True) for place, rule in pairs}}
    if any(isinstance(rule, partition) for _, rule in pairs):
        found["part"] = ""
    for place, rule in pairs:
        found.update({f"{place}.{path}": plain(value) for path, value in _settings(rule).items()})
    return found


def plain(value: object) -> object:
    """A setting as a group holds it: a schedule is data there, which any checkpoint can hold."""
    return to_data(value) if isinstance(value, Schedule) else value


def number_now(value: object, writes: int, lr_share: float) -> object:
    """A setting of a group at a time."""
    schedule = schedule_from_data(value) if isinstance(value, Mapping) else value
    return schedule.at(writes, lr_share) if isinstance(schedule, Schedule) else value


def overridden(rule: Link | None, place: str, group: Group) -> Link | None:
    """The rule with what a group says instead of its own settings; of a partition the part that the group is."""
    if rule is None:
        return None
    own = _settings(rule)
    found = {path: group.get(f"{place}.{path}", value) for path, value in own.items()}
    changed = {path: value for path, value in found.items() if isinstance(value, Tensor) or value != own[path]}
    rule = rule.replace(changed) if changed else rule
    if isinstance(rule, partition):
        called = {f"{place}.{each.name}": each for each in rule.members}
        return called.get(group["part"], rule.members[-1]).rule
    return rule


def _settings(rule: Link) -> dict[str, Setting]:
    """The settings of a rule; which parameters a part is for, and its lr and decay, are those of groups."""
    parts = {path for path, each in rule.parts().items() if isinstance(each, part)}
    return {path: value for path, value in rule.settings().items() if path.rpartition(".")[0] not in parts}


def parted(who: str, group: Group, matrix: Link | None, element: Link | None, model: nn.Module | None) -> list[Group]:
    """A group as one group for each part of a partition that its parameters belong to.

    Args:
        who: name of the optimizer.
        group: as it was given.
        matrix, element: the rules, of which any may be a partition.
        model: knows the tables.
    """
    if not isinstance(group, dict) or not any(isinstance(rule, partition) for rule in (matrix, element)):
        return [group]
    given = group["params"]
    items = [given] if isinstance(given, Tensor) else list(given)
    found: dict[str, list[Tensor | tuple[str, Tensor]]] = {}
    own: dict[str, Group] = {}
    for item in items:
        name, parameter = item if isinstance(item, tuple) else ("", item)
        place, rule = ("matrix", matrix) if parameter.ndim > 1 and matrix is not None else ("element", element)
        key = ""
        if isinstance(rule, partition):
            mine = rule.fitting(name, parameter.shape, _is_table(who, rule, name, parameter, model))
            key = f"{place}.{mine.name}"
            rates = {"lr": mine.lr, "weight_decay": mine.weight_decay}
            own[key] = {name: rate for name, rate in rates.items() if rate is not None and name not in group}
        found.setdefault(key, []).append(item)
    return [{**group, **own.get(key, {}), "params": members, "part": key} for key, members in found.items()]


def _is_table(who: str, rule: partition, name: str, parameter: Tensor, model: nn.Module | None) -> bool:
    if "names" in rule.looks_at and not name:
        raise ValueError(
            f"{who}: a part looks at parameter names, so pass model.named_parameters() instead of model.parameters()"
        )
    if "tables" not in rule.looks_at:
        return False
    if model is None:
        raise TypeError(f"{who}: a part is for tables, the weights of nn.Embedding: pass model=, which has them")
    tables = (module.weight for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag))
    return any(parameter is weight for weight in tables)
