"""From a description back to memories that learn: the core's objects, made from expressions (M1, M3, M5).

    learner = rebuild(nl.describe(torch.optim.AdamW(model.parameters())))
    state = learner.init(weight)
    state = learner.write(state, gradient)

The weights of one parameter become an associative memory whose rule consults the memories described, and these are
written by memories again where the description says so. Nothing of an optimizer's code is used: whoever gets the same
weights as the optimizer has understood the same rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nestlearn.descriptions.data import KEPT, WEIGHTS
from nestlearn.descriptions.language import names_in
from nestlearn.descriptions.scopes import SEEN, Function, Scope
from nestlearn.descriptions.system import NestedSystem
from nestlearn.descriptions.words import check_model, made_model, made_objective, made_rule
from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.described import Described
from nestlearn.memory.models import Constant, Parameters
from nestlearn.memory.nesting import Consult, Consulted, Scene, the_gradient
from nestlearn.memory.objectives import dot_product
from nestlearn.memory.rules import Context, Rule
from nestlearn.memory.state import State, unflatten

__all__ = ["Learner", "rebuild"]


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
    lr: Function
    retention: Function

    def init(self, parameter: Tensor, generator: torch.Generator | None = None) -> State:
        """The state before the first step.

        Args:
            parameter: the weights. A rule for matrices reads a convolution as [out, in * kernel]: give it like this.
            generator: draws the first weights of memories that do not start at zero, in the order in which an optimizer
                draws them.
        """
        box = parameter.detach().clone()
        observers = {member.name: member.init(box) for member in self.observers}
        weights = {"model": {"value": box}, "rule": self.weights.rule.init({"value": box}, generator)}
        if self.weights.period > 1:
            weights["pending"] = {"value": torch.zeros_like(box)}
        return {"weights": weights, "observers": observers, "step": 0}

    def write(
        self,
        state: State,
        gradient: Tensor,
        present: Tensor | None = None,
        seen: Mapping[str, Tensor] | None = None,
    ) -> State:
        """One step; where the weights have a period, its gradients are summed and written at its end.

        Args:
            state: from ``init`` or an earlier step.
            gradient: shaped like the parameter.
            present: marks the entries that a sparse gradient has.
            seen: what was measured for this step: ``{"inputs": A}`` is what expressions call ``seen_inputs``.
        """
        time, weights = state["step"], state["weights"]["model"]["value"]
        observed = {**(seen or {}), **({} if present is None else {"present": present})}
        scene = Scene(gradient, weights, time, observed)
        written, _ = self.weights.write(
            state["weights"],
            gradient,
            -gradient,  # the dot product with minus the gradient has the gradient as its slope
            time=time,
            lr=self.lr(scene),
            retention=self.retention(scene),
            observations=observed,
            surprise=False,
        )
        after = Scene(gradient, written["model"]["value"], time, observed)
        observers = {
            member.name: member.consult(state["observers"][member.name], after)[1] for member in self.observers
        }
        return {"weights": written, "observers": observers, "step": time + 1}


def rebuild(system: NestedSystem, group: int = 0) -> Learner:
    """The learner that a description describes, for a parameter of one of its groups.

    Args:
        system: made by ``nl.describe`` from an optimizer, or read from JSON.
        group: which of ``system.settings`` applies.

    Raises:
        ValueError: the description says in words, and not in expressions, how a memory is written.
    """
    try:
        weights = _weights(system, group)
        scope = Scope(system, group)
        rule = _consult(weights, scope)
        observers = tuple(_Member.of(memory, scope) for memory in scope.onlookers)
        lr, retention = _checked(weights, "lr", scope), _checked(weights, "retention", scope)
        if KEPT in system.where:  # the rule decides, once it has the answers of its memories
            rule, retention = replace(rule, keep=retention), scope.of(KEPT)
    except ValueError as error:
        raise ValueError(
            f"{system.name} cannot be rebuilt: expected a description whose memories are the core's and whose rules "
            f"are expressions; {error}"
        ) from error
    return Learner(AssociativeMemory(Constant(), dot_product, rule, weights.period), observers, lr, retention)


def _weights(system: NestedSystem, group: int) -> Described:
    if not system.known:
        raise ValueError("how its memories are written is not known")
    outer = [memory for memory in system.memories if memory.home == "weights"]
    if len(outer) != 1:
        raise ValueError(f"it has {len(outer)} memories of weights, and one parameter is rebuilt at a time")
    if system.settings and not 0 <= group < len(system.settings):
        raise ValueError(f"it has {len(system.settings)} groups, and no group {group}")
    for memory in system.memories:
        if memory.home not in ("weights", "optimizer"):
            raise ValueError(f"{memory.name!r} belongs to the {memory.home}")
    return outer[0]


def _checked(memory: Described, item: str, scope: Scope, *more: str, text: str = "") -> Function:
    """One of a memory's expressions as a function of the scene of the rule that consults it.

    Args:
        memory: whose.
        item: which.
        scope: of the rule that consults the memory, or of its own where the update is meant.
        *more: names that it may mention besides.
        text: the expression, where it is not the item itself.
    """
    text = text or getattr(memory, item)
    scope.check(f"the {item} of {memory.name!r}", text, *more)
    return scope.tensor(text) if item in ("key", "value", "query", "update") else scope.of(text)


def _consult(memory: Described, scope: Scope) -> Consult:
    """The rule of a memory that consults others, its own scope being given."""
    members = tuple(_Member.of(each, scope) for each in scope.consulted)
    update = _checked(memory, "update", scope, text=memory.update or "u")
    seen = {name.removeprefix(SEEN) for name in _seen(scope.system)}
    known: dict[torch.Size, tuple[Consulted, ...]] = {}

    def memories(shape: torch.Size) -> tuple[Consulted, ...]:
        if shape not in known:
            known[shape] = _shaped(members, shape, seen)
        return known[shape]

    return Consult(memories=memories, combine=lambda scene: update(scene).expand_as(scene.gradient))


def _seen(system: NestedSystem) -> set[str]:
    """All measurements that a description mentions."""
    texts = [text for each in system.memories for text in _texts(each) if text]
    found: set[str] = set()
    for text in [*texts, *system.where.values()]:
        try:
            found |= {name for name in names_in(text) if name.startswith(SEEN)}
        except ValueError:  # words of the weights, which nobody executes
            continue
    return found


def _texts(memory: Described) -> tuple[str, ...]:
    return memory.key, memory.value, memory.query, memory.readout, memory.update


def _shaped(members: tuple["_Member", ...], shape: torch.Size, seen: set[str]) -> tuple[Consulted, ...]:
    """The memories for a tensor of a shape, with models of the widths that their keys and values have there.

    One write with zeros tells the widths: a key may be made of the answers of the memories before.
    """
    if all(member.about.holds != "map" for member in members):
        return tuple(member.held(shape) for member in members)
    nothing = torch.zeros(shape)
    sides = {"inputs": shape[-1:] * 2, "errors": shape[-2:-1] * 2}
    seen_there = {name: torch.zeros(sides.get(name, shape)) for name in seen}
    # What is in a box whose answer is kept may be asked for before the box is written, and is as large as the answer.
    kept = {member.name: member.keep_answer(nothing) for member in members if member.keep_answer is not None}
    scene = Scene(nothing, nothing, 0, seen_there, states=(unflatten(_emptied(kept)),))
    found = []
    for member in members:
        found.append(member.fitted(scene))
        scene.answers[member.name], _ = found[-1].consult(found[-1].init(nothing), scene)
    return tuple(found)


def _emptied(answers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Boxes like these answers, by their names in a flat state, with nothing in them."""
    return {f"{name}.model.value": torch.zeros_like(answer) for name, answer in answers.items()}


@dataclass(frozen=True)
class _Stated(Rule):
    """A rule of the core that consults nobody, by its update as an expression over u, M, k and v."""

    update_is: Function = lambda scene, **_: scene.gradient

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Parameters, State]:
        ((name, gradient),) = gradients.items()
        held = context.parameters or {}
        scene = Scene(gradient, time=context.time, observations=context.observations, lr=context.lr)
        return {name: self.update_is(scene, M=held[name], k=context.key, v=context.value)}, state


def _rule(memory: Described, scope: Scope) -> Rule:
    """The rule that writes a memory; lr and retention come with each write."""
    inside = scope.inside(memory)
    if inside.consulted or memory.rule == "consult":
        return _consult(memory, inside)
    if memory.update:
        return _Stated(update_is=_checked(memory, "update", inside, "M", "k", "v"))
    try:
        return made_rule(memory.rule)
    except ValueError as error:
        raise ValueError(f"{memory.name!r}: {error}") from error


@dataclass(frozen=True)
class _Member(Consulted):
    """A consulted memory whose rate, retention and first content are expressions.

    Its own symbol stands for its content before the write while its value is computed.
    """

    about: Described = field(default=Described(WEIGHTS))
    lr: Function = lambda scene: 1.0
    retention: Function = lambda scene: 1.0
    initial: Function | None = None

    @classmethod
    def of(cls, memory: Described, scope: Scope) -> "_Member":
        """A memory of a description, in the scope of the rule that consults it."""

        def said(item: str, *more: str) -> Any:
            return _checked(memory, item, scope, *more) if getattr(memory, item) else None

        try:
            check_model(memory.model)
            objective, (period, every) = made_objective(memory.objective), _pace(memory, scope)
        except ValueError as error:
            raise ValueError(f"{memory.name!r}: {error}") from error
        readout, first = said("readout", "M"), said("first_answer")
        return cls(
            scope.local(memory),
            AssociativeMemory(Constant(), objective, _rule(memory, scope), period),
            key=the_gradient if memory.key == "none" else said("key"),
            value=said("value"),
            query=said("query"),
            readout=None if readout is None else lambda answer, scene: readout(scene, M=answer),
            fresh=memory.fresh,
            every=every,
            refresh=memory.refresh,
            keep_answer=None if first is None else lambda gradient: _kept(first(Scene(gradient)), gradient),
            about=memory,
            lr=said("lr"),
            retention=said("retention"),
            initial=said("initial"),
        )

    def held(self, shape: torch.Size) -> "_Member":
        """The same for a parameter of this shape: a box of rows or columns has a shape of its own."""
        if self.about.holds == "entry":
            return self
        own = {"row": (*shape[-2:-1], 1), "column": (1, *shape[-1:])}.get(self.about.holds, (1,) * min(len(shape), 2))
        return replace(self, memory=replace(self.memory, model=Constant(own)))

    def fitted(self, scene: Scene) -> "_Member":
        """The same with the model that fits what it is shown in a scene."""
        if self.about.holds != "map":
            return self.held(scene.gradient.shape)
        key, value = self.key(scene), self.value(scene)
        model = made_model(self.about.model, key, value, self.memory.objective)
        return replace(self, memory=replace(self.memory, model=model))

    def init(self, gradient: Tensor, generator: torch.Generator | None = None) -> State:
        state = super().init(gradient, generator)
        if self.initial is not None:
            state["model"]["value"] += self.initial(Scene(gradient))
        return state

    def consult(self, state: State, scene: Scene) -> tuple[Tensor, State]:
        if "value" in state["model"]:
            scene.answers[self.name] = state["model"]["value"]
        rule = replace(self.memory.rule, lr=self.lr(scene), retention=self.retention(scene))
        return Consulted.consult(replace(self, memory=replace(self.memory, rule=rule)), state, scene)


def _pace(memory: Described, scope: Scope) -> tuple[int, int]:
    """(period over which pairs are summed, every how many writes it is shown one): writes of the rule that asks it."""
    above = next(each.period for each in scope.system.memories if _is(each, scope.above))
    own, rest = divmod(memory.period, above)
    if rest or own < 1:
        raise ValueError(f"its period {memory.period} is no multiple of {above}, that of {scope.above!r}")
    return (own, 1) if memory.collects else (1, own)


def _is(memory: Described, name: str) -> bool:
    return memory.home == "weights" if name == WEIGHTS else memory.name == name


def _kept(answer: Any, gradient: Tensor) -> Tensor:
    """A first answer that may be given as one number."""
    return answer.clone() if isinstance(answer, Tensor) else torch.full_like(gradient, answer)
