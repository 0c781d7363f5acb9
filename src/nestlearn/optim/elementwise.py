"""Which parameters follow the element-wise rule by choice, whatever becomes of the parameter objects.

A choice is made when a group is added. Later a parameter may be replaced (a table that grows, points that are pruned):
the new one keeps what was chosen for its name, or for its place in the group.
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, TypedDict

from torch import Tensor, nn

from nestlearn.errors import did_you_mean
from nestlearn.optim.settings import Elementwise, Group

__all__ = ["Choice"]


class Saved(TypedDict):
    """What a pickle keeps of a choice: patterns of names, and for each place of each group whether it was chosen."""

    patterns: list[str] | None
    chosen: list[list[bool]]


class _Seen(NamedTuple):
    """The parameters of a group as they were last looked at, and which of them were chosen."""

    parameters: list[Tensor]
    names: list[str]
    chosen: list[bool]

    def holds(self, parameters: Sequence[Tensor]) -> bool:
        """Whether these are the same objects in the same places."""
        same = len(parameters) == len(self.parameters)
        return same and all(own is other for own, other in zip(self.parameters, parameters, strict=True))


class Choice:
    """The choice of element-wise parameters over all groups of an optimizer.

    Args:
        who: name of the optimizer, for errors.
        wanted: what ``elementwise=`` was given.
    """

    def __init__(self, who: str, wanted: Elementwise | None) -> None:
        self._who = who
        self._wanted = wanted if wanted is None or callable(wanted) else list(wanted)
        self._seen: list[_Seen] = []
        self._ids: set[int] = set()

    def __contains__(self, parameter: Tensor) -> bool:
        return id(parameter) in self._ids

    def add(self, group: Group) -> None:
        """Choose among the parameters of a new group."""
        if not self._chooses:  # nothing to remember, and nothing to keep alive
            self._seen.append(_Seen([], [], []))
            return
        names = _names(group)
        if self._looks_at_names and not names and group["params"]:
            raise ValueError(
                f"{self._who}: elementwise looks at parameter names, so pass model.named_parameters() instead of "
                "model.parameters()"
            )
        self._seen.append(_Seen(list(group["params"]), list(names), self._select(group["params"], names)))
        self._collect()

    def send(self, groups: Sequence[Group], parameters: Sequence[Tensor]) -> None:
        """Choose these as well."""
        sent = set(map(id, parameters))
        for index, (seen, group) in enumerate(zip(self._seen, groups, strict=True)):
            own, chosen = list(group["params"]), seen.chosen or [False] * len(group["params"])
            chosen = [before or id(each) in sent for before, each in zip(chosen, own, strict=True)]
            self._seen[index] = _Seen(own, list(_names(group)), chosen)
        self._collect()

    def forget(self, group: int) -> None:
        """Take back the choice in this group and later ones, which could not be added."""
        del self._seen[group:]
        self._collect()

    def follow(self, groups: Sequence[Group]) -> None:
        """Notice parameters that were replaced, added or taken away since."""
        if not self._chooses:
            self._seen = [_Seen([], [], []) for _ in groups]
            return
        if len(groups) == len(self._seen) and all(
            seen.holds(group["params"]) for seen, group in zip(self._seen, groups, strict=True)
        ):
            return
        objects: dict[int, bool] = {}
        names: dict[str, bool] = {}
        for seen in self._seen:
            objects.update({id(own): chosen for own, chosen in zip(seen.parameters, seen.chosen, strict=True)})
            names.update(zip(seen.names, seen.chosen, strict=False))
        here = {id(parameter) for group in groups for parameter in group["params"]}
        gone = [
            [chosen and id(own) not in here for own, chosen in zip(seen.parameters, seen.chosen, strict=True)]
            for seen in self._seen
        ]
        places = [*gone, *([] for _ in groups)]
        self._seen = [self._again(group, objects, names, own) for group, own in zip(groups, places, strict=False)]
        self._collect()

    def check(self, groups: Sequence[Group]) -> None:
        """Raise ValueError if something that ``elementwise`` names is not among the parameters, and not frozen."""
        if self._wanted is None or callable(self._wanted):
            return
        names = [name for group in groups for name in _names(group)]
        owned = {id(parameter) for group in groups for parameter in group["params"]}
        for item in self._wanted:
            if isinstance(item, str):
                if not any(fnmatchcase(name, item) for name in names):
                    raise ValueError(
                        f"{self._who}: elementwise pattern {item!r} matches no parameter name; "
                        f"the names are {', '.join(names)}.{did_you_mean(item, names)}"
                    )
            elif not any(id(tensor) in owned or not tensor.requires_grad for tensor in _tensors(item)):
                raise ValueError(
                    f"{self._who}: elementwise names a {type(item).__name__} of which no parameter was given to the "
                    "optimizer"
                )

    def saved(self) -> Saved:
        """What a pickle needs: the patterns, and what was chosen, place by place. Functions and objects stay behind."""
        patterns = [] if callable(self._wanted) else [item for item in self._wanted or () if isinstance(item, str)]
        return {"patterns": patterns or None, "chosen": [list(seen.chosen) for seen in self._seen]}

    @staticmethod
    def restored(who: str, saved: Saved, groups: Sequence[Group]) -> "Choice":
        """The choice over the groups of an unpickled optimizer."""
        choice = Choice(who, saved["patterns"])
        choice._seen = [
            _Seen(list(group["params"]), list(_names(group)), list(chosen)) if chosen else _Seen([], [], [])
            for group, chosen in zip(groups, saved["chosen"], strict=True)
        ]
        choice._collect()
        return choice

    @property
    def _chooses(self) -> bool:
        return self._wanted is not None or bool(self._ids)

    @property
    def _looks_at_names(self) -> bool:
        return callable(self._wanted) or any(isinstance(item, str) for item in self._wanted or ())

    def _again(
        self, group: Group, objects: Mapping[int, bool], named: Mapping[str, bool], places: Sequence[bool]
    ) -> _Seen:
        """The choice in a group that has changed.

        Args:
            group: as it is now.
            objects, named: what was chosen before in any group, by id and by name.
            places: which places of this group held a chosen parameter that is no longer anywhere.
        """
        parameters, names = group["params"], _names(group)
        selected, chosen = self._select(parameters, names), []
        for place, parameter in enumerate(parameters):
            if id(parameter) in objects:
                chosen.append(objects[id(parameter)])
            elif names and names[place] in named:
                chosen.append(named[names[place]])
            else:
                chosen.append(selected[place] or (place < len(places) and places[place]))
        return _Seen(list(parameters), list(names), chosen)

    def _select(self, parameters: Sequence[Tensor], names: Sequence[str]) -> list[bool]:
        """Which of these parameters ``elementwise`` names; without names, only by object."""
        if self._wanted is None or (callable(self._wanted) and not names):
            return [False] * len(parameters)
        if callable(self._wanted):
            test: Callable[[str, Tensor], bool] = self._wanted
            return [bool(test(name, parameter)) for name, parameter in zip(names, parameters, strict=True)]
        objects = {id(tensor) for item in self._wanted for tensor in _tensors(item)}
        patterns = [item for item in self._wanted if isinstance(item, str)] if names else []
        return [
            id(parameter) in objects or any(fnmatchcase(names[place], pattern) for pattern in patterns)
            for place, parameter in enumerate(parameters)
        ]

    def _collect(self) -> None:
        self._ids = {
            id(own) for seen in self._seen for own, chosen in zip(seen.parameters, seen.chosen, strict=True) if chosen
        }


def _names(group: Group) -> Sequence[str]:
    """The names of a group's parameters; none where they are not known for every one of them."""
    names = group.get("param_names") or ()
    return names if len(names) == len(group["params"]) else ()


def _tensors(item: object) -> list[Tensor]:
    if isinstance(item, nn.Module):
        return list(item.parameters())
    if isinstance(item, Tensor):
        return [item]
    if isinstance(item, str):
        return []
    raise TypeError(f"elementwise takes parameters, modules, name patterns or a function; got {type(item).__name__}")
