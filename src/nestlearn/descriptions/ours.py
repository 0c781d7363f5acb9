"""Descriptions of our own optimizers, read from the rules that they really use.

The rule of the weights consults memories, whose rules may consult memories (M5, O6): the description walks along, once
for each shape of parameter, and counts what ``state[parameter]`` holds for each role it finds. Words for keys, values
and read-outs stand beside the functions they are for, in ``Consulted``, ``Consult`` and ``Target``.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from nestlearn.descriptions.data import KEPT, WEIGHTS, inner_name, sort_into_levels
from nestlearn.descriptions.parameters import covered, outermost, written_parameters
from nestlearn.descriptions.system import NestedSystem
from nestlearn.memory.described import Described
from nestlearn.memory.models import Constant
from nestlearn.memory.nesting import Consult, Consulted, Said
from nestlearn.memory.rules import GradientDescent, Rule
from nestlearn.memory.state import state_bytes
from nestlearn.memory.times import Scalar
from nestlearn.memory.words import model_words, number_words, objective_words, rule_words
from nestlearn.optim.lanes import matrix_shape
from nestlearn.optim.optimizer import Optimizer
from nestlearn.rules.blocks import WHOLE, Cut

__all__ = ["behind", "definitions", "describe_ours", "locate", "update_and_kept"]

UNSAID = "a function of the scene"
"""Stands for a key, value or query for which nobody has written words."""


def describe_ours(optimizer: Optimizer) -> list[tuple[NestedSystem, list[Tensor]]]:
    """The nested systems of one of ``nestlearn.optim``, one for each rule, and the parameters that follow it.

    The rule for matrices comes first.
    """
    parts: dict[Any, _Part] = {}
    defined: dict[tuple[int, torch.Size], dict[str, str]] = {}
    for group in optimizer.param_groups:
        for parameter in written_parameters(optimizer, group):
            entry = optimizer.entry(parameter, group)
            lr = "lr" if entry.own_lr or group["elementwise_lr"] is None else "elementwise_lr"
            retention = f"1 - {lr} * weight_decay" if group["weight_decay"] else "1"
            shape = parameter.shape if entry.flat else torch.Size(entry.shape)
            update, kept = update_and_kept(entry.rule, shape, retention)
            if (id(entry.rule), shape) not in defined:
                defined[id(entry.rule), shape] = definitions(entry.rule, shape)
            part = _Part(
                entry.rule,
                entry.flat,
                group["period"],
                bool(group["maximize"]),
                lr,
                retention,
                entry.cut,
                update,
                kept,
                defined[id(entry.rule), shape],
            )
            key = (id(part.rule), *(getattr(part, item.name) for item in fields(part)[1:9]), *part.where.items())
            parts.setdefault(key, part).members.append((parameter, group))
    ordered = sorted(parts.values(), key=lambda part: (part.flat, -part.entries))
    return [(_system(optimizer, part), [parameter for parameter, _ in part.members]) for part in ordered]


@dataclass
class _Part:
    """The parameters that follow one rule in one way, which the same words say."""

    rule: Rule
    flat: bool
    period: int
    maximize: bool
    lr: str
    retention: str
    cut: Cut
    update: str
    kept: str
    where: Mapping[str, str]
    members: list[tuple[Tensor, dict[str, Any]]] = field(default_factory=list)

    @property
    def entries(self) -> int:
        return sum(parameter.numel() for parameter, _ in self.members)


def _system(optimizer: Optimizer, part: _Part) -> NestedSystem:
    parameters = [parameter for parameter, _ in part.members]
    found: dict[str, list[Described]] = {}
    bookkeeping = 0
    fresh: dict[Any, tuple[list[Described], int]] = {}
    for parameter, group in part.members:
        state, alike = optimizer.state.get(parameter), (parameter.shape, parameter.dtype)
        if state:
            behind = _behind(part, parameter, state)
        else:
            if alike not in fresh:
                fresh[alike] = _behind(part, parameter, optimizer.fresh_state(parameter, group, device="meta"))
            behind = fresh[alike]
        for memory in behind[0]:
            found.setdefault(memory.name, []).append(memory)
        bookkeeping += behind[1]
    groups = {id(group): group for _, group in part.members}.values()
    used = {name for name in ("lr", "elementwise_lr", "weight_decay") if name in f"{part.lr} {part.retention}".split()}
    return NestedSystem(
        type(optimizer).__name__,
        sort_into_levels([_weights(part), *map(_together, found.values())]),
        notes=tuple(_notes(optimizer, part)),
        settings=tuple({name: _number(optimizer, group, name) for name in sorted(used)} for group in groups),
        where={"u": "-g" if part.maximize else "g", **part.where, **_kept(part)},
        covers=covered(parameters),
        bookkeeping=bookkeeping,
    )


def _notes(optimizer: Optimizer, part: _Part) -> Iterator[str]:
    if optimizer.needs_graph:
        yield "a step needs a closure that keeps the graph of the loss"
    if part.cut != WHOLE:
        yield f"each matrix is {part.cut.into} blocks of {part.cut.of}, which the rule writes as matrices of their own"


def _behind(part: _Part, parameter: Tensor, state: dict[str, Tensor]) -> tuple[list[Described], int]:
    """The memories behind the rule of one parameter, measured in its state, and the bytes there that are no memory."""
    written = int(state["step"]) >= part.period  # before the first write there is no surprise
    return behind(part.rule, _shape(part, parameter), state, part.period, blocks=part.cut.into, written=written)


def behind(
    rule: Rule, shape: torch.Size, state: Mapping[str, Tensor], period: int, *, blocks: int = 1, written: bool = True
) -> tuple[list[Described], int]:
    """The memories that a rule consults for a tensor, measured in the state of it, and the bytes there that are none.

    Args:
        rule: of the tensor.
        shape: of the tensor, or of one of the blocks that it is cut into.
        state: what the rule keeps, by the names of tensors.
        period: of the rule.
        blocks: how many the tensor is cut into.
        written: whether it ever was, so that a surprise is one.
    """
    roles: dict[str, Described] = {}
    for memory, _ in _consulted(rule, shape, WEIGHTS, period):
        count = roles[memory.name].count if memory.name in roles else 0
        roles[memory.name] = replace(memory, count=count + blocks)
    surprises: dict[str, list[Tensor]] = {}
    rest = 0
    for key, tensor in state.items():
        role, own = locate(key, roles)
        if role is None:
            rest += state_bytes(tensor)
            continue
        memory = roles[role]
        entries = memory.parameters + (tensor.numel() if own[0] == "model" else 0)
        roles[role] = replace(memory, parameters=entries, bytes=memory.bytes + state_bytes(tensor))
        if own == ["surprise"]:
            surprises.setdefault(role, []).append(tensor)
    for role, tensors in surprises.items() if written else ():
        roles[role] = replace(roles[role], surprise=_mean(tensors))
    return list(roles.values()), rest


def _consulted(rule: Rule, shape: torch.Size, above: str, period: int) -> Iterator[tuple[Described, Consulted]]:
    """The memories that a rule consults for a tensor of this shape, each followed by those that its own rule consults.

    A memory that is written by memories has one set of them for each of its parameters (O6).
    """
    if not isinstance(rule, Consult):
        return
    for turn, member in enumerate(rule.memories(shape)):
        memory = _memory(member, shape, above, period, turn)
        yield memory, member
        model = member.memory.model
        for tensor in model.init(shape if model.per_entry else shape[:-2], device="meta").values():
            yield from _consulted(member.memory.rule, tensor.shape, memory.name, memory.period)


def _shape(part: _Part, parameter: Tensor) -> torch.Size:
    return parameter.shape if part.flat else torch.Size(part.cut.shape(matrix_shape(parameter)))


def _kept(part: _Part) -> dict[str, str]:
    """The share of the weights that is kept unless the rule decides it, where it does or words speak of it."""
    said = [part.update, *part.where.values()]
    for memory, _ in _consulted(part.rule, _shape(part, part.members[0][0]), WEIGHTS, part.period):
        said += [memory.key, memory.value, memory.query, memory.readout]
    decides = getattr(part.rule, "keep", None) is not None
    return {KEPT: part.retention} if decides or any(_mentions(words) for words in said) else {}


def _mentions(words: str) -> bool:
    return re.search(rf"\b{KEPT}\b", words) is not None


def definitions(rule: Rule, shape: torch.Size) -> dict[str, str]:
    """What the words of a rule and of its memories define besides, for tensors of a shape."""
    found: dict[str, str] = {}
    for name, text in _defined(rule, shape):
        if found.setdefault(name, text) != text:
            raise ValueError(f"two parts of the rule say {name!r} and mean different things: give one of them a name=")
    return found


def _defined(rule: Rule, shape: torch.Size) -> Iterator[tuple[str, str]]:
    if not isinstance(rule, Consult):
        return
    said: list[object] = [rule.combine]
    for member in rule.memories(shape):
        said += [member.key, member.value, member.query, member.readout]
        yield from _defined(member.memory.rule, _inner_shape(member, shape))
    for each in said:
        if isinstance(each, Said):
            yield from each.at(shape).where.items()


def locate(key: str, roles: Mapping[str, Described]) -> tuple[str | None, list[str]]:
    """The role that a key of a state belongs to, None for the adapter's own, and what is left of the key.

    "momentum.rule.outer.momentum.model.inner" is the inner matrix of the memory that writes the outer matrix of the
    momentum: its role is "momentum.momentum".
    """
    names = key.split(".")
    starts = [".".join(names[: count + 1]) for count in range(len(names))]
    start = next((start for start in starts if _join(WEIGHTS, start) in roles), None)
    if start is None:
        return None, names[1:]
    role, rest = _join(WEIGHTS, start), names[start.count(".") + 1 :]
    while rest[0] == "rule" and len(rest) > 2 and _join(role, rest[2]) in roles:
        role, rest = _join(role, rest[2]), rest[3:]
    return role, rest


def _join(above: str, name: str) -> str:
    return inner_name(name) if above == WEIGHTS else f"{above}.{name}"


def _mean(tensors: list[Tensor]) -> float | None:
    known = [tensor.float().mean() for tensor in tensors if tensor.device.type != "meta"]
    return torch.stack(known).mean().item() if known else None


def _together(alike: list[Described]) -> Described:
    """The memories of one role in many parameters as one."""
    models = list(dict.fromkeys(memory.model for memory in alike))
    surprises = [memory.surprise for memory in alike if memory.surprise is not None]
    return replace(
        alike[0],
        model=", ".join(models if len(models) < 3 else [models[0], "...", models[-1]]),
        count=sum(memory.count for memory in alike),
        parameters=sum(memory.parameters for memory in alike),
        bytes=sum(memory.bytes for memory in alike),
        surprise=sum(surprises) / len(surprises) if surprises else None,
    )


def _weights(part: _Part) -> Described:
    return replace(
        outermost([parameter for parameter, _ in part.members]),
        period=part.period,
        rule=rule_words(part.rule),
        lr=part.lr,
        retention=part.kept,
        update=part.update,
    )


def _number(optimizer: Optimizer, group: dict[str, Any], name: str) -> float:
    """A setting as it is in force now."""
    return float(optimizer.rate(group, own=False) if name == "elementwise_lr" else group[name])


def _memory(member: Consulted, shape: torch.Size, above: str, period: int, turn: int) -> Described:
    memory = member.memory
    # A box ignores its key, unless its rule reads it.
    ignores = isinstance(memory.model, Constant) and isinstance(memory.rule, (GradientDescent, Consult))
    return Described(
        _join(above, member.name),
        symbol=member.name,
        period=period * max(member.every, memory.period),
        collects=member.every == 1,
        model=model_words(memory.model)
        + (" with features" if getattr(memory.model, "features", None) is not None else ""),
        objective=objective_words(memory.objective),
        key="none" if ignores else _said(member.key, shape),
        value=_said(member.value, shape),
        rule=rule_words(memory.rule),
        lr=number_words(memory.rule.lr) if member.rate is None else _said(member.rate, shape),
        retention=number_words(memory.rule.retention),
        update=_update(memory.rule, _inner_shape(member, shape)),
        query="" if member.query in (None, member.key) else _said(member.query, shape),
        readout="" if member.readout is None else _said(member.readout, shape, "a function of M"),
        refresh=member.refresh,
        first_answer=""
        if member.keep_answer is None
        else _said(member.keep_answer, shape, "a function of the gradient"),
        fresh=member.fresh,
        consulted_by=above,
        turn=turn,
        holds="entry" if memory.model.per_entry else "map",
        initial="0" if isinstance(memory.model, Constant) else "",
        state=member.name,
    )


def update_and_kept(rule: Rule, shape: torch.Size, retention: str) -> tuple[str, str]:
    """The update that a rule makes of a tensor, empty for the gradient itself, and what it keeps of the tensor."""
    update = "" if type(rule) is GradientDescent else _update(rule, shape) or "the rule's update"
    keep = getattr(rule, "keep", None)
    return update, retention if keep is None else _said(keep, shape, "a function of the scene")


def _inner_shape(member: Consulted, shape: torch.Size) -> torch.Size:
    """Of the tensors of a memory behind tensors of a shape."""
    model = member.memory.model
    return next(iter(model.init(shape if model.per_entry else shape[:-2], device="meta").values())).shape


def _said(function: Callable[..., Scalar], shape: torch.Size, unsaid: str = UNSAID) -> str:
    """A function in words, for tensors of a shape; whoever wrote it may have left them out."""
    return function.at(shape).words if isinstance(function, Said) else unsaid


def _update(rule: Rule, shape: torch.Size) -> str:
    """What a rule makes of its memories, in words."""
    if isinstance(rule, Consult):
        return _said(rule.combine, shape, "a combination of their answers")
    return getattr(rule, "update_is", "")
