"""From a description back to memories that learn: the core's objects, made from expressions (M1, M3, M5).

    learner = rebuild(nl.describe(torch.optim.AdamW(model.parameters())))
    state = learner.init(weight)
    state = learner.write(state, gradient)

The weights of one parameter become an associative memory whose rule consults the memories described. Nothing of torch's
optimizer is used: whoever gets the same weights as torch has understood the same rule.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nestlearn.descriptions.language import evaluate, names_in
from nestlearn.descriptions.system import NestedSystem
from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.described import Described
from nestlearn.memory.models import Constant
from nestlearn.memory.nesting import Consult, Consulted, Scene
from nestlearn.memory.objectives import dot_product, l2
from nestlearn.memory.rules import GradientDescent
from nestlearn.memory.state import State

__all__ = ["Learner", "rebuild"]

OBJECTIVES = {"l2": l2, "dot_product": dot_product}


@dataclass(frozen=True)
class Learner:
    """A rebuilt optimizer for one parameter. State goes in and comes out, as for every memory here.

    Attributes:
        weights: the outermost memory; a pair is (nothing, minus the gradient).
        observers: memories that are written after the weights and that nobody consults.
        lr, retention: of the weights, at each step.
    """

    weights: AssociativeMemory
    observers: tuple[Consulted, ...]
    lr: Callable[[Scene], Any]
    retention: Callable[[Scene], Any]

    def init(self, parameter: Tensor) -> State:
        """The state before the first step, with ``parameter`` as the weights."""
        box = parameter.detach().clone()
        rule = self.weights.rule.init({"value": box})
        return {
            "weights": {"model": {"value": box}, "rule": rule},
            "observers": {member.name: member.init(box) for member in self.observers},
            "step": 0,
        }

    def write(self, state: State, gradient: Tensor, present: Tensor | None = None) -> State:
        """One step; ``present`` marks the entries that a sparse gradient has."""
        time, weights = state["step"], state["weights"]["model"]["value"]
        seen = {} if present is None else {"present": present}
        scene = Scene(gradient, weights, time, seen)
        written, _ = self.weights.write(
            state["weights"],
            gradient,
            -gradient,  # the dot product with minus the gradient has the gradient as its slope
            time=time,
            lr=self.lr(scene),
            retention=self.retention(scene),
            observations=seen,
            surprise=False,
        )
        after = Scene(gradient, written["model"]["value"], time, seen)
        observers = {
            member.name: member.consult(state["observers"][member.name], after)[1] for member in self.observers
        }
        return {"weights": written, "observers": observers, "step": time + 1}


def rebuild(system: NestedSystem, group: int = 0) -> Learner:
    """The learner that a description describes, for a parameter of one of its groups.

    Args:
        system: made by ``nl.describe`` from a torch optimizer, or read from JSON.
        group: which of ``system.settings`` applies.

    Raises:
        ValueError: the description says in words, and not in expressions, how a memory is written.
    """
    weights = _checked(system, group)
    context = _Names(system, group)
    boxes = [memory for memory in system.memories if memory.home == "optimizer"]
    members = tuple(_Member.of(memory, context) for memory in boxes if memory.consulted_by)
    update = weights.update or "u"
    rule = Consult(memories=lambda shape: tuple(member.shaped(shape) for member in members), combine=context.of(update))
    return Learner(
        AssociativeMemory(Constant(), dot_product, rule),
        tuple(_Member.of(memory, context) for memory in boxes if not memory.consulted_by),
        context.of(weights.lr),
        context.of(weights.retention),
    )


def _checked(system: NestedSystem, group: int) -> Described:
    """The weights of a system that is made of boxes and expressions alone; an error for any other."""
    try:
        if not system.known:
            raise ValueError("how its memories are written is not known")
        outer = [memory for memory in system.memories if memory.home == "weights"]
        if len(outer) != 1:
            raise ValueError(f"it has {len(outer)} memories of weights, and one parameter is rebuilt at a time")
        if system.settings and not 0 <= group < len(system.settings):
            raise ValueError(f"it has {len(system.settings)} groups, and no group {group}")
        for memory in system.memories:
            _check_memory(memory)
        texts = [text for memory in system.memories for text in _expressions(memory)]
        for text in [*texts, *system.where.values()]:
            unknown = names_in(text) - _defined(system, group)
            if unknown:
                raise ValueError(f"{text!r} mentions {', '.join(sorted(unknown))}, which it does not define")
    except ValueError as error:
        raise ValueError(
            f"{system.name} cannot be rebuilt: expected a description whose memories are boxes and whose rules are "
            f"expressions; {error}"
        ) from error
    return outer[0]


def _check_memory(memory: Described) -> None:
    """Raise ValueError for a memory that is no box under gradient descent, read as it is."""
    if memory.home == "weights":
        return
    plain = Described(memory.name)
    for item in ("model", "key", "rule", "update", "query", "readout", "period"):
        if getattr(memory, item) != getattr(plain, item):
            raise ValueError(f"the {item} of {memory.name!r} is {getattr(memory, item)!r}")
    if memory.objective not in OBJECTIVES or memory.home != "optimizer":
        raise ValueError(f"{memory.name!r} has the objective {memory.objective!r} and belongs to the {memory.home}")


def _expressions(memory: Described) -> tuple[str, ...]:
    own = (memory.update or "u",) if memory.home == "weights" else (memory.value, memory.initial)
    return (*own, memory.lr, memory.retention)


def _defined(system: NestedSystem, group: int) -> set[str]:
    symbols = {memory.symbol for memory in system.memories}
    settings = set(system.settings[group]) if system.settings else set()
    return symbols | settings | set(system.where) | {"g", "W", "t", "present"}


@dataclass(frozen=True)
class _Names:
    """What the names of a description stand for in a scene."""

    system: NestedSystem
    group: int

    def of(self, text: str) -> Callable[[Scene], Any]:
        """The expression as a function of a scene."""
        settings = self.system.settings[self.group] if self.system.settings else {}
        symbols = {memory.symbol: memory.name for memory in self.system.memories if memory.home == "optimizer"}

        def value(scene: Scene) -> Any:
            present = scene.observations.get("present", 1.0)
            known: Mapping[str, Any] = {
                "g": scene.gradient, "W": scene.parameter, "t": (scene.time or 0) + 1, "present": present, **settings
            }  # fmt: skip

            def look_up(name: str) -> Any:
                if name in known:
                    return known[name]
                if name in symbols:
                    return scene.answers[symbols[name]]
                return evaluate(self.system.where[name], look_up)

            found = evaluate(text, look_up)
            return found.to(scene.gradient.dtype) if isinstance(found, Tensor) else found

        return value


@dataclass(frozen=True)
class _Member(Consulted):
    """A consulted memory whose rate, retention and first content are expressions.

    Its own symbol stands for its content before the write while its value is computed.
    """

    lr: Callable[[Scene], Any] = lambda scene: 1.0
    retention: Callable[[Scene], Any] = lambda scene: 1.0
    initial: Callable[[Scene], Any] = lambda scene: 0.0
    holds: str = "entry"

    @classmethod
    def of(cls, memory: Described, names: _Names) -> "_Member":
        return cls(
            memory.name,
            AssociativeMemory(Constant(), OBJECTIVES[memory.objective], GradientDescent()),
            value=names.of(memory.value),
            fresh=memory.fresh,
            lr=names.of(memory.lr),
            retention=names.of(memory.retention),
            initial=names.of(memory.initial),
            holds=memory.holds,
        )

    def shaped(self, shape: torch.Size) -> "_Member":
        """The same for a parameter of this shape: a box of rows or columns has a shape of its own."""
        if self.holds == "entry":
            return self
        own = {"row": (*shape[-2:-1], 1), "column": (1, *shape[-1:])}.get(self.holds, (1,) * min(len(shape), 2))
        return replace(self, memory=replace(self.memory, model=Constant(own)))

    def init(self, gradient: Tensor, generator: torch.Generator | None = None) -> State:
        state = super().init(gradient, generator)
        state["model"]["value"] += self.initial(Scene(gradient))
        return state

    def consult(self, state: State, scene: Scene) -> tuple[Tensor, State]:
        scene.answers[self.name] = state["model"]["value"]
        rule = GradientDescent(lr=self.lr(scene), retention=self.retention(scene))
        timed = replace(self.memory, rule=rule)
        return Consulted(self.name, timed, value=self.value, fresh=self.fresh).consult(state, scene)
