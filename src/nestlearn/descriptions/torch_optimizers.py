"""Descriptions of ``torch.optim`` optimizers: recipes filled in with a real object's settings, shapes and state.

An optimizer that is no class of torch, or a subclass that steps in its own way, is described by what can be seen: its
weights and one memory for each tensor in its state, and the words that we do not know how they are written.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nestlearn.descriptions.data import WEIGHTS, inner_name, sort_into_levels
from nestlearn.descriptions.language import evaluate, names_in, specialise
from nestlearn.descriptions.parameters import covered, outermost, written_parameters
from nestlearn.descriptions.recipes import RECIPES, SETTINGS, Box, Recipe
from nestlearn.descriptions.system import NestedSystem
from nestlearn.memory.described import Described
from nestlearn.memory.state import count_entries, leaves, state_bytes

__all__ = ["describe_torch"]

UNKNOWN = "unknown"


def describe_torch(optimizer: torch.optim.Optimizer) -> list[tuple[NestedSystem, list[Tensor]]]:
    """The nested systems of any torch optimizer, one for each way of writing, and the parameters that follow it."""
    recipe = _recipe(optimizer)
    if recipe is None:
        return [_unknown(optimizer)]
    parts: dict[str, _Part] = {}
    for group in optimizer.param_groups:
        settings = _settings(group)
        for own, parameters in _split(recipe, written_parameters(optimizer, group)):
            part = _part(own, settings, parameters)
            parts.setdefault(part.key, replace(part, settings=[], parameters=[])).add(part)
    return [(_system(optimizer, recipe, part), part.parameters) for part in parts.values()]


@dataclass
class _Part:
    """Parameters that follow the same expressions: the texts, and one dictionary of settings a group."""

    weights: Described
    boxes: list[tuple[Box, Described]]
    where: dict[str, str]
    settings: list[dict[str, Any]]
    parameters: list[Tensor]
    scalars: tuple[str, ...]

    @property
    def key(self) -> str:
        return repr((self.weights, self.boxes, self.where))

    def add(self, other: "_Part") -> None:
        self.settings += other.settings
        self.parameters += other.parameters


def _recipe(optimizer: torch.optim.Optimizer) -> Recipe | None:
    """The recipe of the class, or of the torch class whose step a subclass has left alone."""
    kind = type(optimizer)
    for base in kind.__mro__:
        if base.__module__.startswith("torch.optim") and base.__name__ in RECIPES:
            # torch wraps `step` on every class for its profiler; what it wraps is what counts.
            return RECIPES[base.__name__] if _methods(kind) == _methods(base) else None
    return None


def _methods(kind: type) -> list[Any]:
    """The functions that decide how a class of torch steps."""
    found = (getattr(kind, name, None) for name in ("step", "_init_group"))
    return [None if method is None else inspect.unwrap(method) for method in found]


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a group by the names that expressions use: plain numbers, truth values, words or None."""
    settings: dict[str, Any] = {}
    for name, value in group.items():
        if name in ("params", "param_names", "initial_lr"):
            continue
        parts = SETTINGS.get(name, (name,)) if isinstance(value, (tuple, list)) else (name,)
        values = value if isinstance(value, (tuple, list)) else (value,)
        for part, item in zip(parts, values, strict=False):
            settings[part] = item.item() if isinstance(item, Tensor) else item
    return settings


def _split(recipe: Recipe, parameters: list[Tensor]) -> list[tuple[Recipe, list[Tensor]]]:
    if recipe.vectors is None:
        return [(recipe, parameters)] if parameters else []
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    return [(own, chosen) for own, chosen in ((recipe, matrices), (recipe.vectors, vectors)) if chosen]


def _part(recipe: Recipe, settings: dict[str, Any], parameters: list[Tensor]) -> _Part:
    """The recipe with everything decided that the settings decide."""

    def decide(text: str) -> str:
        return specialise(text, settings) if recipe.executable else text

    update = decide(recipe.update)
    weights = replace(
        outermost(()),
        rule="gradient descent" if update == "u" else "consult",
        lr=decide(recipe.lr),
        retention=decide(recipe.retention),
        update="" if update == "u" else update,
    )
    boxes = [
        (
            box,
            Described(
                box.name,
                symbol=box.symbol,
                objective=box.objective,
                value=decide(box.value),
                lr=decide(box.lr),
                retention=decide(box.retention),
                fresh=box.fresh and not box.after,
                consulted_by="" if box.after else WEIGHTS,
                follows=WEIGHTS if box.after else "",
                holds=box.holds,
                initial=decide(box.initial),
                state=box.state,
            ),
        )
        for box in recipe.boxes
        if not box.when or evaluate(box.when, settings.__getitem__)
    ]
    where = _reachable({name: decide(text) for name, text in recipe.where.items()}, weights, [own for _, own in boxes])
    return _Part(weights, boxes, where, [settings], list(parameters), recipe.scalars)


def _reachable(where: dict[str, str], weights: Described, boxes: list[Described]) -> dict[str, str]:
    """The definitions that some expression mentions, in their order; the gradient is always explained."""
    texts = [weights.update or "u", weights.lr, weights.retention]
    texts += [text for box in boxes for text in (box.value, box.lr, box.retention)]
    wanted = {"u"}
    while texts:
        found = {name for name in _mentions(texts.pop()) if name in where} - wanted
        wanted |= found
        texts += [where[name] for name in found]
    return {name: text for name, text in where.items() if name in wanted}


def _mentions(text: str) -> set[str]:
    try:
        return names_in(text)
    except ValueError:  # words, where a recipe is not executable
        return set()


def _system(optimizer: torch.optim.Optimizer, recipe: Recipe, part: _Part) -> NestedSystem:
    parameters, settings = part.parameters, part.settings
    sized = outermost(parameters)
    found = [replace(part.weights, count=sized.count, parameters=sized.parameters, bytes=sized.bytes)]
    accounted = 0
    for box, memory in part.boxes:
        sizes = [_size(box, parameter, settings[0]) for parameter in parameters]
        held = [optimizer.state[p].get(box.state) if p in optimizer.state else None for p in parameters]
        if recipe.joint and any(item is not None for item in held):
            sizes = [(count_entries(item), state_bytes(item)) for item in held]
        actual = [state_bytes(item) if item is not None else size[1] for item, size in zip(held, sizes, strict=True)]
        accounted += sum(state_bytes(item) for item in held)
        found.append(
            replace(memory, count=len(parameters), parameters=sum(size[0] for size in sizes), bytes=sum(actual))
        )
    known = {id(parameter): optimizer.state.get(parameter) for parameter in parameters}
    bookkeeping = sum(state_bytes(state) for state in known.values()) - accounted
    bookkeeping += sum(not state for state in known.values()) * len(part.scalars) * _number_size()
    used = set().union(*(_mentions(text) for text in _texts(found, part.where)))
    return NestedSystem(
        type(optimizer).__name__,
        sort_into_levels(found),
        notes=(recipe.note,) if recipe.note else (),
        settings=tuple({name: item for name, item in one.items() if name in used} for one in settings),
        where=part.where,
        covers=covered(parameters),
        bookkeeping=bookkeeping,
    )


def _texts(memories: list[Described], where: Mapping[str, str]) -> list[str]:
    own = [text for m in memories for text in (m.value, m.lr, m.retention, m.update, m.initial) if text]
    return [*own, *where.values()]


def _size(box: Box, parameter: Tensor, settings: Mapping[str, Any]) -> tuple[int, int]:
    """(entries, bytes) that a box will have for one parameter."""
    if box.holds == "number":
        return 1, _number_size()
    shares = {"row": parameter.shape[-1:], "column": parameter.shape[-2:-1]}.get(box.holds, ())
    entries = parameter.numel()
    for share in shares:
        entries //= max(share, 1)
    entries *= settings[box.copies] if box.copies else 1
    return entries, entries * parameter.element_size()


def _number_size() -> int:
    """Bytes of torch's single numbers: float32, unless the default is float64."""
    return 8 if torch.get_default_dtype() == torch.float64 else 4


def _unknown(optimizer: torch.optim.Optimizer) -> tuple[NestedSystem, list[Tensor]]:
    """What can be seen of an optimizer that we have no recipe for."""
    parameters = [p for group in optimizer.param_groups for p in written_parameters(optimizer, group)]
    # What is unknown of every tensor in the state.
    blank = Described(
        "",
        model=UNKNOWN,
        objective=UNKNOWN,
        key=UNKNOWN,
        value=UNKNOWN,
        rule=UNKNOWN,
        lr="",
        retention="",
        holds=UNKNOWN,
        initial="",
        consulted_by=WEIGHTS,
    )
    weights = replace(outermost(parameters), rule=UNKNOWN, lr="", retention="")
    found: dict[str, Described] = {}
    bookkeeping = 0
    for state in optimizer.state.values():
        for name, item in state.items():
            if name == "step" or not leaves(item):
                bookkeeping += state_bytes(item)
                continue
            word = str(name)
            before = found.get(name, replace(blank, name=inner_name(word), symbol=word, state=word))
            found[name] = replace(
                before,
                count=before.count + 1,
                parameters=before.parameters + count_entries(item),
                bytes=before.bytes + state_bytes(item),
            )
    kind = type(optimizer)
    notes = [
        f"{kind.__module__}.{kind.__qualname__} is not known to us: what is listed are the tensors in its state; how "
        "they are written we do not know, and that the weights' rule reads them is assumed"
    ]
    if not optimizer.state:
        notes.append("it has no state yet: describe it again after a step to see what it remembers")
    memories = sort_into_levels([weights, *found.values()])
    covers = covered(parameters)
    system = NestedSystem(kind.__name__, memories, False, tuple(notes), covers=covers, bookkeeping=bookkeeping)
    return system, parameters
