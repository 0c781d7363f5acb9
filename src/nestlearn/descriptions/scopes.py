"""What the names of a description stand for, and whether all of them stand for something.

Every rule has a scope: the memories that it consults, by their symbols, and what all rules see. So a memory behind a
memory may be called like the one before it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from nestlearn.descriptions.data import WEIGHTS
from nestlearn.descriptions.language import evaluate, names_in
from nestlearn.descriptions.system import NestedSystem
from nestlearn.memory.described import Described
from nestlearn.memory.nesting import Scene

__all__ = ["SEEN", "Function", "Scope"]

SEEN = "seen_"
"""Names of what was measured outside begin with this."""

HELD = "held_"
"""Names of what is in a box, whatever it is read through, begin with this."""

COMMON = {"g", "u", "W", "t", "lr", "present"}
"""Names that every rule has."""

Function = Callable[..., Any]
"""A function of a scene, and of further names as keywords."""


@dataclass(frozen=True)
class Scope:
    """What one rule of a description sees.

    Attributes:
        system: the description.
        group: which of its settings apply.
        above: the memory that the rule writes; "weights" for all of them.
    """

    system: NestedSystem
    group: int
    above: str = WEIGHTS

    @property
    def outermost(self) -> bool:
        """Whether it is the weights' rule, which alone sees settings and the gradient as it came."""
        return self.above == WEIGHTS

    @property
    def consulted(self) -> list[Described]:
        """The memories that the rule consults, in their order."""
        found = [memory for memory in self.system.memories if memory.consulted_by == self.above]
        return sorted(found, key=lambda memory: memory.turn)

    @property
    def onlookers(self) -> list[Described]:
        """The memories that nobody consults, which are shown what the weights' rule sees."""
        behind = [memory for memory in self.system.memories if memory.home == "optimizer"]
        return [memory for memory in behind if not memory.consulted_by] if self.outermost else []

    def local(self, memory: Described) -> str:
        """The name of a memory's state and answer here."""
        return memory.name if self.outermost else memory.name.removeprefix(f"{self.above}.")

    def inside(self, memory: Described) -> "Scope":
        """The scope of the rule that writes a memory."""
        return Scope(self.system, self.group, memory.name)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The settings that expressions of this rule may mention."""
        return self.system.settings[self.group] if self.outermost and self.system.settings else {}

    @cached_property
    def symbols(self) -> Mapping[str, str]:
        """The name of a memory here by its symbol."""
        return {memory.symbol: self.local(memory) for memory in [*self.consulted, *self.onlookers]}

    @cached_property
    def held(self) -> Mapping[str, str]:
        """The same by the names that the contents of memories have."""
        return {HELD + memory.symbol: self.local(memory) for memory in self.consulted}

    def of(self, text: str) -> Function:
        """An expression as a function of a scene and of names that are known besides, such as M in a read-out."""

        def value(scene: Scene, **known: Any) -> Any:
            def look_up(name: str) -> Any:
                if name in known:
                    return known[name]
                if name in self.symbols:
                    return scene.answers[self.symbols[name]]
                if name in self.held:
                    return scene.held(self.held[name])
                if name in self.settings:
                    return self.settings[name]
                if name.startswith(SEEN):
                    return scene.observations[name.removeprefix(SEEN)]
                return self._common(name, scene, look_up)

            found = evaluate(text, look_up)
            return found.to(scene.gradient.dtype) if isinstance(found, Tensor) else found

        return value

    def tensor(self, text: str) -> Function:
        """The same, with a number as a tensor of its own."""
        function = self.of(text)

        def value(scene: Scene, **known: Any) -> Tensor:
            found = function(scene, **known)
            return found if isinstance(found, Tensor) else scene.gradient.new_full((), found)

        return value

    def _common(self, name: str, scene: Scene, look_up: Callable[[str], Any]) -> Any:
        match name:
            case "u" if not self.outermost or name not in self.system.where:
                return scene.gradient
            case "g":
                return scene.gradient
            case "W":
                return scene.parameter
            case "t":
                return (scene.time or 0) + 1
            case "lr":
                return scene.lr
            case "present":
                return scene.observations.get("present", 1.0)
        return evaluate(self.system.where[name], look_up)

    def check(self, what: str, text: str, *more: str) -> None:
        """Raise ValueError for a text that is no expression of the language, or mentions what is not there.

        Args:
            what: the text in words, for the message.
            text: the expression.
            *more: names that it may mention besides.
        """
        clash = (COMMON | {"T"} | set(self.system.where)) & set(self.symbols)
        if clash:
            raise ValueError(f"a memory is called {', '.join(sorted(clash))}, which means something else there")
        known = COMMON | set(self.symbols) | set(self.held) | set(self.settings) | set(more)
        try:
            unknown = {name for name in self._mentioned(text) if not name.startswith(SEEN)} - known
        except ValueError as error:
            raise ValueError(f"{what} is said in words alone: {error}") from error
        if unknown:
            raise ValueError(f"{what}, {text!r}, mentions {', '.join(sorted(unknown))}, which it does not define")

    def _mentioned(self, text: str) -> set[str]:
        """The names that an expression mentions, itself or through definitions."""
        waiting, seen, found = [text], set(self.symbols) | set(self.settings), set()
        while waiting:
            for name in names_in(waiting.pop()):
                if name in seen or name not in self.system.where or (name == "u" and not self.outermost):
                    found.add(name)
                else:
                    seen.add(name)
                    waiting.append(self.system.where[name])
        return found - set(self.system.where) | ({"u"} & found)
