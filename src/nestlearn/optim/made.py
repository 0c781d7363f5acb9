"""Rules that were made from settings, kept until a setting changes."""

from collections.abc import Hashable

from torch import Tensor

from nestlearn.optim.adapter import Adapter
from nestlearn.optim.composed import Rules
from nestlearn.optim.settings import COMMON, Group, hashable, structure

__all__ = ["Made", "snapshot"]

_NO_SETTINGS = {*COMMON, "lr", "elementwise_base", "momentum", "rule"} - {"averaged_weights"}
"""Settings that no rule is made from."""

_SPARE = 8
"""Rules of before that are kept besides one a group: a setting that cycles comes back."""


class Made:
    """The rules of an optimizer's groups. Groups with equal settings have the same ones.

    Anybody may change a setting at any time, so what a group holds is compared with what its rules were made from; in a
    step they stay what they are. Forgetting all of it costs time and changes nothing.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] | None = None
        self._made: dict[Hashable, Rules] = {}
        self._structures: dict[Hashable, int] = {}
        self._seen: dict[int, tuple[list[object], Rules]] = {}
        self._step: dict[int, Rules] | None = None

    def begin(self) -> None:
        """From here on, rules stay what they are."""
        self._step = {}

    def end(self) -> None:
        """From here on, settings are looked at again."""
        self._step = None

    def settings(self, group: Group) -> Group | None:
        """What the rules of a group were made from, where that is known without looking at it."""
        found = None if self._step is None else self._step.get(id(group))
        return None if found is None else found.settings

    def names(self, optimizer: Adapter) -> tuple[str, ...]:
        """The settings that rules are made from."""
        if self._names is None:
            self._names = tuple(name for name in optimizer.declared if name not in _NO_SETTINGS)
        return self._names

    def rules(self, optimizer: Adapter, group: Group) -> Rules:
        """The rules of a group."""
        if self._step is None:
            return self._rules(optimizer, group)
        found = self._step.get(id(group))
        if found is None:
            found = self._step[id(group)] = self._rules(optimizer, group)
        return found

    def _rules(self, optimizer: Adapter, group: Group) -> Rules:
        values = [group[name] for name in self.names(optimizer)]
        seen = self._seen.get(id(group))
        if seen is not None and seen[0] == values:
            return seen[1]
        settings = optimizer.rule_settings(group)
        key = hashable(settings)
        rules = self._made.pop(key, None)
        if rules is None:
            # Rules keep what they are made from: not the parameters, which may be replaced.
            given = {name: value for name, value in group.items() if name not in ("params", "param_names")} | settings
            form = self._structures.setdefault(hashable(structure(settings)), len(self._structures))
            rules = Rules.averaging(optimizer.matrix_rule(given), optimizer.element_rule(given), settings, form)
        self._made[key] = rules  # the latest are the last
        most = len(optimizer.param_groups) + _SPARE
        for old in list(self._made)[: max(0, len(self._made) - most)]:
            del self._made[old]
        # What may change in place is looked at anew each time, and so is what depends on the time.
        if all(map(_stays, values)):
            if len(self._seen) >= most:
                self._seen.clear()
            self._seen[id(group)] = values, rules
        return rules


def snapshot(value: object) -> object:
    """A setting as it is now: lists and tensors may be changed in place, and would be compared with themselves."""
    if isinstance(value, list | tuple):
        return tuple(snapshot(item) for item in value)
    return float(value) if isinstance(value, Tensor) and value.numel() == 1 else value


def _stays(value: object) -> bool:
    """Whether a setting cannot change in place."""
    if isinstance(value, tuple):
        return all(map(_stays, value))
    return value is None or isinstance(value, bool | int | float | str)
