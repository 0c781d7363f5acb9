"""What a description is: memories sorted into levels, as plain data (M4, [NL] Definitions 2-4).

``Data`` is made from a real object and then stands alone: it holds words, numbers and expressions (see
``nestlearn.descriptions.language``), becomes JSON and comes back equal. How it is shown, as text and as a picture, is
``nestlearn.descriptions.system``'s to know.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Self

from nestlearn.memory.described import Described
from nestlearn.memory.levels import levels

__all__ = ["KEPT", "UNITS", "WEIGHTS", "Data", "Level", "inner_name", "sort_into_levels"]

WEIGHTS = "weights"
"""The name of the outermost memory, and what ``consulted_by`` says of the memories behind its rule."""

KEPT = "retention"
"""Where a rule decides how much of the weights is kept: the name of what would be kept otherwise."""

UNITS = ("step", "token")
"""What periods are counted in, the slower first: a step of the optimizer sees all tokens of its batch."""


@dataclass(frozen=True)
class Level:
    """Memories of which neither is faster: one pace, and none that needs another at the same time (M4)."""

    number: int
    period: int
    memories: tuple[Described, ...]
    unit: str = "step"


@dataclass(frozen=True)
class Data:
    """The memories behind one object, and what writes them.

    Attributes:
        name: the class that was described.
        memories: slowest level first; the weights before what their rule consults.
        known: False where the way a memory is written is not known to us.
        notes: what a reader should know besides.
        settings: numbers that expressions mention, one mapping for each parameter group.
        where: definitions that expressions mention.
        covers: which parameters follow this rule.
        bookkeeping: bytes of the optimizer's state that is no memory, such as step counts.
        sequence_bookkeeping: the same in the state of a sequence, such as the tokens that a convolution looks back to.
        others: the systems of parameters that follow another rule, such as vectors beside matrices.
    """

    name: str
    memories: tuple[Described, ...]
    known: bool = True
    notes: tuple[str, ...] = ()
    settings: tuple[Mapping[str, Any], ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)
    covers: str = ""
    bookkeeping: int = 0
    sequence_bookkeeping: int = 0
    others: tuple[Self, ...] = ()

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, slowest first."""
        numbers = sorted({memory.level for memory in self.memories})
        found = [tuple(memory for memory in self.memories if memory.level == number) for number in numbers]
        return tuple(Level(members[0].level, members[0].period, members, members[0].unit) for members in found)

    @property
    def everything(self) -> tuple[Self, ...]:
        """This system and the others, flat."""
        return (self, *(system for other in self.others for system in other.everything))

    @property
    def parameters(self) -> int:
        """Entries of the weights that are written, those of the other systems included."""
        return sum(memory.parameters for memory in self._all() if memory.home == "weights")

    @property
    def state_bytes(self) -> int:
        """Bytes of the optimizer's state, memories and bookkeeping, those of the other systems included."""
        memories = sum(memory.bytes for memory in self._all() if memory.home == "optimizer")
        return memories + sum(system.bookkeeping for system in self.everything)

    @property
    def sequence_bytes(self) -> int:
        """Bytes of the state of one sequence before its first token, memories and bookkeeping."""
        memories = sum(memory.bytes for memory in self._all() if memory.home == "sequence")
        return memories + sum(system.sequence_bookkeeping for system in self.everything)

    @property
    def bytes_per_token(self) -> int:
        """Bytes that every token adds to the state of its sequence; 0 where no memory grows."""
        return sum(memory.bytes_per_token for memory in self._all())

    def to_dict(self) -> dict[str, Any]:
        """Everything as lists, dictionaries, strings and numbers, ready for JSON."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        data["memories"] = [asdict(memory, dict_factory=_plain) for memory in self.memories]
        data["notes"] = list(self.notes)
        data["settings"] = [dict(settings) for settings in self.settings]
        data["where"] = dict(self.where)
        data["others"] = [other.to_dict() for other in self.others]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The system that ``to_dict`` was called on; what an older description did not know yet has its default.

        Raises:
            ValueError: a key without a default is missing, or one is unknown.
        """
        _check_keys(cls, data)
        for memory in data["memories"]:
            _check_keys(Described, memory)
        tuples = {
            "memories": tuple(Described(**{**memory, **_tuples(memory)}) for memory in data["memories"]),
            "notes": tuple(data.get("notes", ())),
            "settings": tuple(dict(settings) for settings in data.get("settings", ())),
            "others": tuple(cls.from_dict(other) for other in data.get("others", ())),
        }
        return cls(**{**data, "where": dict(data.get("where", {})), **tuples})

    def to_json(self, indent: int | None = 2) -> str:
        """``to_dict`` as text."""
        return json.dumps(self.to_dict(), indent=indent)

    def _all(self) -> Iterator[Described]:
        return (memory for system in self.everything for memory in system.memories)


def inner_name(name: str) -> str:
    """The name of a memory behind the weights' rule, which is never that of the weights themselves."""
    return f"past_{name}" if name == WEIGHTS else name


def sort_into_levels(memories: Collection[Described]) -> tuple[Described, ...]:
    """Number the memories by level (M4) and sort them, slowest first: all that count steps, then all that count tokens.

    A rule needs the memories it consults at the time of its write, and a memory that looks on needs what it looks at.
    What tokens ask before its write, as in S4, they do not need at that time. All weights of one system count as one
    memory, "weights".
    """
    numbered: list[Described] = []
    for unit in UNITS:
        paced = [memory for memory in memories if memory.unit == unit]
        slower = max((memory.level for memory in numbered), default=0)
        numbered += [replace(memory, level=slower + place) for memory, place in zip(paced, _places(paced), strict=True)]
    return tuple(sorted(numbered, key=lambda memory: memory.level))


def _places(memories: Collection[Described]) -> list[int]:
    """The level of each of these memories among them, from 1."""

    def name(memory: Described) -> str:
        return WEIGHTS if memory.home == "weights" else memory.name

    periods = {name(memory): memory.period for memory in memories}
    needs: dict[str, set[str]] = {each: set() for each in periods}
    for memory in memories:
        if memory.consulted_by and (memory.fresh or memory.unit == "step"):
            needs[memory.consulted_by].add(memory.name)
        if memory.follows:
            needs[memory.name].add(memory.follows)
    number = {each: place for place, level in enumerate(levels(periods, needs), 1) for each in level}
    return [number[name(memory)] for memory in memories]


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in pairs}


def _tuples(data: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The lists that JSON makes of a memory's tuples, as tuples again."""
    return {name: tuple(data.get(name, ())) for name in ("read_by", "starts_from")}


def _check_keys(kind: type, data: Mapping[str, Any]) -> None:
    known = {item.name: item for item in fields(kind)}
    missing = {
        name for name, item in known.items() if item.default is MISSING and item.default_factory is MISSING
    } - set(data)
    if missing or set(data) - set(known):
        raise ValueError(
            f"expected the dictionary of a {kind.__name__} as to_dict makes it; missing {sorted(missing)}, "
            f"unknown {sorted(set(data) - set(known))}"
        )
