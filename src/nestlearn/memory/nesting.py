"""A rule that consults memories: where the nesting comes from (O2-O8, O14, [S] 5.3-5.4).

Momentum, Adam and deep momentum differ only in which memories their rule consults and in how it combines the answers:

===============  ==========================================================  ===============================
optimizer        memories the weights' rule consults                         combination
===============  ==========================================================  ===============================
momentum         a box that sums gradients                                   its answer
Adam             a box for the gradient, a box for its square                m / (sqrt(v) + eps)
deep momentum    an MLP from rows of the gradient to rows of a target        its answer
===============  ==========================================================  ===============================

Each consulted memory has a rule of its own, which may be a ``Consult`` again: nesting has no limit (O6). What passes
between levels here is direct reading (M5); states are plain tensors, so back-propagation through writes and learned
initial states are the caller's to use.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import Parameters
from nestlearn.memory.rules import Context, Kept, Rule, Updates, always
from nestlearn.memory.state import State
from nestlearn.memory.times import Number, Scalar, Time, Times, happens_at, number_at, numbers_at

__all__ = ["Consult", "Consulted", "Said", "Scene", "the_gradient"]


@dataclass(frozen=True)
class Said:
    """A function and what it computes in words, which descriptions print and, where the words are an expression,
    execute: ``nestlearn.descriptions`` has the language.

    Words speak of u, the gradient, M, the answer of the memory that is read, W, the weights, t, the write from one,
    seen_inputs and the like, what was measured, and of other memories by their names. ``where`` has definitions for
    names of their own, which the words of one memory need more than once. Where they differ from shape to shape,
    ``by_shape`` has them for each.
    """

    words: str
    function: Callable[..., Tensor]
    where: Mapping[str, str] = field(default_factory=dict, compare=False)
    by_shape: Callable[[torch.Size], "Said"] | None = field(default=None, compare=False)

    def at(self, shape: torch.Size) -> "Said":
        """The same for tensors of one shape."""
        return self if self.by_shape is None else self.by_shape(shape)

    def __call__(self, *arguments: object) -> Tensor:
        return self.function(*arguments)


@dataclass(frozen=True)
class Scene:
    """What lies before a consulted memory when one parameter is written.

    ``gradient`` and ``parameter`` have the parameter's shape with any batch of equal parameters in front; ``answers``
    holds the read-outs of the memories that were consulted before in the same write, by name. ``scalars`` are what the
    rule computed from the time alone, and ``inplace`` says whether states may be overwritten. ``lr`` and ``retention``
    are those of the write to come, and ``named`` has what parts of the rule answer, by name. ``states`` has what the
    memories of the rule hold: those of this write first, then those of the write before.
    """

    gradient: Tensor
    parameter: Tensor | None = None
    time: Time | None = None
    observations: Mapping[str, Tensor] = field(default_factory=dict)
    scalars: Mapping[str, Scalar] = field(default_factory=dict)
    inplace: bool = False
    lr: Scalar = 1.0
    retention: Scalar = 1.0
    named: Mapping[str, Callable[["Scene"], Tensor]] = field(default_factory=dict)
    states: tuple[State, ...] = ()
    answers: dict[str, Tensor] = field(default_factory=dict)
    known: dict[Hashable, Tensor] = field(default_factory=dict)

    @property
    def weights(self) -> Tensor:
        """The parameter that is written.

        Raises:
            ValueError: whoever writes has not shown it.
        """
        if self.parameter is None:
            raise ValueError("the rule looks at what it writes: pass Context(parameters=...) to its update")
        return self.parameter

    def number(self, at: Number) -> Scalar:
        """``at(time)``; where memories of the batch have been written unequally often, one number for each of them."""
        return number_at(self.time, at)

    def answer(self, name: str) -> Tensor:
        """What the part of the rule called ``name`` answers in this write, whether or not it has a memory.

        Raises:
            KeyError: no part has been given this name.
        """
        if name not in self.named:
            raise KeyError(f"no part of the rule is called {name!r}: expected one of {sorted(self.named)}")
        return self.named[name](self)

    def held(self, name: str) -> Tensor:
        """What is in the box of a memory of the rule now, whatever it is read through: its turn in this write may have
        been, or is still to come.

        Raises:
            KeyError: the rule has no such memory, or it is no box.
        """
        for state in self.states:
            found = reduce(lambda held, part: held.get(part, {}), name.split("."), state)
            if found:
                box: Tensor = found["model"]["value"]
                return box
        raise KeyError(f"the rule has no memory called {name!r}")

    def once(self, name: Hashable, compute: Callable[["Scene"], Tensor]) -> Tensor:
        """``compute(scene)``, remembered under ``name``, a hashable of the caller's own, until the write is over."""
        if name not in self.known:
            self.known[name] = compute(self)
        return self.known[name]


the_gradient = Said("u", lambda scene: scene.gradient)
"""The key, and often the value, of an optimizer's memory: the gradient itself."""


@dataclass(frozen=True)
class Consulted:
    """A memory behind a rule: what it is shown, what it is asked, and what is made of its answer.

    Args:
        name: stable key of its state and of its answer; a path with dots is one of nested dictionaries.
        memory: the memory. A box of one number is held once for every entry of the gradient, any other once for every
            matrix.
        key, value: what it is written with.
        query: what it is asked; None asks the key it was just shown.
        readout: a pure function of (answer, scene) applied after the read, such as bias correction or Newton-Schulz.
            Numbers that depend on the time it takes from ``scene.number``.
        fresh: True reads the memory after its write (as [S] 5.3 prints), False before it.
        every: the memory is shown a pair only at every ``every``-th write of the parameter; between, it is only asked.
            This is how an expensive value is computed rarely while the memory carries it.
        refresh: the read-out is computed at every ``refresh``-th write and kept in between, whatever is written
            meanwhile: for costly read-outs.
        keep_answer: store the read-out and reuse it until the memory changes again, or until it is refreshed; the
            function makes the first answer from a gradient of the right shape (``torch.zeros_like``, say).
        track: store the surprise of the latest write as ``surprise``.
        rate: lr of a write, as a function of the scene; None is that of the memory's rule.

    Functions that are ``Said`` have words for descriptions; any other callable does as well and is described as a
    function of the scene.
    """

    name: str
    memory: AssociativeMemory
    # A factory, as torch.compile does not know an object of ours that is a default.
    key: Callable[[Scene], Tensor] = field(default_factory=lambda: the_gradient)
    value: Callable[[Scene], Tensor] = field(default_factory=lambda: the_gradient)
    query: Callable[[Scene], Tensor] | None = None
    readout: Callable[[Tensor, Scene], Tensor] | None = None
    fresh: bool = True
    every: int = 1
    refresh: int = 1
    keep_answer: Callable[[Tensor], Tensor] | None = None
    track: bool = False
    rate: Callable[[Scene], Scalar] | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"memory {self.name!r}: every must be at least 1, got {self.every}")
        if self.every > 1 and self.memory.period > 1:
            raise ValueError(f"memory {self.name!r}: give it a period or show it a pair every k writes, not both")
        if self.refresh < 1 or (self.refresh > 1 and self.keep_answer is None):
            raise ValueError(
                f"memory {self.name!r}: refresh must be at least 1 and needs keep_answer=, got {self.refresh}"
            )

    @cached_property
    def path(self) -> tuple[str, ...]:
        """Of the dictionaries that hold its state."""
        return tuple(self.name.split("."))

    def init(self, gradient: Tensor, generator: torch.Generator | None = None) -> State:
        """The state for gradients shaped like ``gradient``."""
        batch_shape = gradient.shape if self.memory.model.per_entry else gradient.shape[:-2]
        state = self.memory.init(batch_shape, dtype=gradient.dtype, device=gradient.device, generator=generator)
        if self.keep_answer is not None:
            state["answer"] = self.keep_answer(gradient)
        if self.track:
            state["surprise"] = gradient.new_zeros(batch_shape)
        return state

    def schedule(self, shape: torch.Size) -> Callable[[int], Hashable]:
        """``Rule.schedule`` of what happens here, for gradients of ``shape``."""
        model, every, period = self.memory.model, self.every, self.memory.period
        tensors = model.init(tuple(shape if model.per_entry else shape[:-2]), device="meta").values()
        inner = [self.memory.rule.schedule(tensor.shape) for tensor in tensors]
        if every == period == self.refresh == 1 and all(each is always for each in inner):
            return always

        def happens(time: int) -> Hashable:
            shown, writes = time % every == 0, time // every
            written = shown and (writes + 1) % period == 0
            refreshed = time % self.refresh == 0
            return shown, written, refreshed, tuple(each(writes // period) for each in inner) if written else ()

        return happens

    def consult(self, state: State, scene: Scene) -> tuple[Tensor, State]:
        """Show the memory its pair, ask it, and return (answer, state)."""
        written, query = state, None
        if self.every == 1 or self._happens(scene.time, self.every, first=True):
            query = self.key(scene)
            written, surprise = self.memory.write(
                state,
                query,
                self.value(scene),
                time=None if scene.time is None else scene.time // self.every,
                lr=None if self.rate is None else self.rate(scene),
                observations=dict(scene.observations),
                surprise=self.track,
                # A memory that is asked before its write needs its old state once more.
                inplace=scene.inplace and self.fresh,
            )
            if self.track:
                written["surprise"] = surprise
        if self.keep_answer is not None and not self._changes(scene.time):
            return state["answer"], {**written, "answer": state["answer"]}
        if self.query is not None or query is None:
            query = (self.query or self.key)(scene)
        answer = self.memory.read(written if self.fresh else state, query)
        if self.readout is not None:
            answer = self.readout(answer, scene)
        if self.keep_answer is not None:
            written["answer"] = answer
        return answer, written

    def _changes(self, time: Time | None) -> bool:
        if self.refresh > 1:
            return self._happens(time, self.refresh, first=True)
        if self.every > 1:
            return self._happens(time, self.every, first=True)
        return self._happens(time, self.memory.period, first=False)

    def _happens(self, time: Time | None, every: int, *, first: bool) -> bool:
        """Whether what happens once in ``every`` writes happens at this one: at the first of them, or at the last."""
        if every == 1:
            return True
        if not isinstance(time, int | Times):
            raise ValueError(
                f"memory {self.name!r} acts once in {every} writes and needs the time as an int, got {time!r}"
            )
        due: bool = happens_at(time, lambda time: (time if first else time + 1) % every == 0)
        return due


@dataclass(frozen=True)
class Consult(Rule):
    """The update is a combination of the answers of memories that the gradient is shown to.

    Args:
        memories: the memories for a gradient of a given shape, in the order in which they are consulted; a later one
            sees the answers of the earlier ones.
        combine: scene with all answers -> update, shaped like the gradient and pointing uphill.
        keep: scene with all answers -> what is kept of the parameter, where the rule decides that too; the scene has
            the ``retention`` that is kept otherwise.
        named: functions of the scene for tensors of a shape, which others may ask by name.
        scalars_at: numbers that depend on the time alone, such as bias corrections, computed once a write.

    State: ``{parameter name: {memory name: memory state}}``.
    """

    memories: Callable[[torch.Size], tuple[Consulted, ...]] = lambda shape: ()
    combine: Callable[[Scene], Tensor] = field(default_factory=lambda: the_gradient)
    scalars_at: Callable[[Any], Mapping[str, Scalar]] = lambda time: {}
    keep: Callable[[Scene], Scalar] | None = None
    named: Callable[[torch.Size], Mapping[str, Callable[[Scene], Tensor]]] = lambda shape: {}

    def scalars(self, time: Time | None) -> Mapping[str, Scalar]:
        return numbers_at(time, self.scalars_at)

    def schedule(self, shape: torch.Size) -> Callable[[int], Hashable]:
        members = [member.schedule(shape) for member in self.memories(shape)]
        if all(happens is always for happens in members):
            return always
        return lambda time: tuple(happens(time) for happens in members)

    def init(self, parameters: Parameters, generator: torch.Generator | None = None) -> State:
        state: State = {}
        for name, tensor in parameters.items():
            state[name] = {}
            for member in self.memories(tensor.shape):
                held = state[name]
                for part in member.path[:-1]:
                    held = held.setdefault(part, {})
                held[member.path[-1]] = member.init(tensor, generator)
        return state

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Updates, State]:
        updates: dict[str, Tensor | Kept] = {}
        written: State = {}
        scalars = self.scalars(context.time) if context.scalars is None else context.scalars
        for name, gradient in gradients.items():
            parameter = None if context.parameters is None else context.parameters[name]
            written[name] = {}
            scene = Scene(
                gradient,
                parameter,
                context.time,
                context.observations,
                scalars,
                context.inplace,
                context.lr,
                context.retention,
                self.named(gradient.shape),
                (written[name], state.get(name, {})),
            )
            for member in self.memories(gradient.shape):
                held, new = state[name], written[name]
                for part in member.path[:-1]:
                    held, new = held[part], new.setdefault(part, {})
                answer, new[member.path[-1]] = member.consult(held[member.path[-1]], scene)
                scene.answers[member.name] = answer
            update = self.combine(scene)
            updates[name] = update if self.keep is None else Kept(update, self.keep(scene))
        return updates, written
