"""A description as plain text: who is there and how large, and below it who is shown what and written by which rule."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

from nestlearn.describe.system import Memory, NestedSystem

__all__ = ["apart", "as_text", "every", "headline", "readable_bytes", "shown", "written"]

WIDTH = 120
GAP = "  "


def as_text(system: NestedSystem) -> str:
    """The tables of a system, then those of the parameters that follow another rule."""
    if not system.memories:
        return "\n".join([f"{system.name}: no memories", *(f"Note: {note}." for note in system.notes)])
    covers = f" for {system.covers}" if system.covers else ""
    state = f"{readable_bytes(system.state_bytes)} of state{' in all' if system.others else ''}"
    blocks = [f"{headline(system)}{covers}; {state}"]
    for part in system.everything:
        heading = [] if part is system else [f"{apart(part, system)}:"]
        blocks += [*heading, _sizes(part), _rules(part), *_definitions(part)]
        blocks += [_wrap(f"Note: {note}.") for note in part.notes]
    return "\n\n".join(block for block in blocks if block)


def headline(system: NestedSystem) -> str:
    """'AdamW: 3 memories on 2 levels'."""
    memories, levels = len(system.memories), len(system.levels)
    words = f"{memories} {'memory' if memories == 1 else 'memories'} on {levels} level{'' if levels == 1 else 's'}"
    return f"{system.name}: {words}"


def apart(part: NestedSystem, system: NestedSystem) -> str:
    """The heading of parameters that follow another rule than the main ones."""
    return f"Apart from these, {part.covers}{'' if part.name == system.name else f', with {part.name}'}"


def every(period: int) -> str:
    """A pace in words."""
    return "every step" if period == 1 else f"every {period} steps"


def readable_bytes(count: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit returns")


def written(memory: Memory) -> str:
    """How a memory is written, in a line: the rule, its rate and what it keeps, the read-out."""
    words = [memory.rule]
    if memory.home == "weights" and memory.lr:
        formula, _, remark = (memory.update or "u").partition("; ")
        update = formula if formula.isidentifier() else f"({formula})"
        kept = "W" if memory.retention == "1" else f"({memory.retention}) W"
        rate = memory.lr if memory.lr.isidentifier() else f"({memory.lr})"
        words = [f"W <- {kept} - {update}" if memory.lr == "1" else f"W <- {kept} - {rate} {update}"]
        words += [remark] if remark else []
    elif memory.lr:
        words += [f"lr {memory.lr}"] if memory.lr != "1" or memory.retention == "1" else []
        words += [f"retention {memory.retention}"] if memory.retention != "1" else []
        words += [f"update {memory.update}".replace("; ", ", ")] if memory.update else []
    if memory.initial not in ("", "0"):
        words.append(f"starts at {memory.initial}")
    if memory.query:
        words.append(f"asked about {memory.query}")
    if not memory.fresh and memory.consulted_by:
        words.append("read before its write")
    if memory.readout:
        words.append(f"read as {memory.readout}")
    return ", ".join(words)


def shown(memory: Memory) -> str:
    """The pair that a memory is shown; a box has no key."""
    return memory.value if memory.key == "none" else f"{memory.key} -> {memory.value}"


def _sizes(system: NestedSystem) -> str:
    measured = any(memory.surprise is not None for memory in system.memories)
    rows = [["level", "written", "memory", "model", "count", "entries", "bytes", *(["surprise"] if measured else [])]]
    for memory in system.memories:
        surprise = "-" if memory.surprise is None else f"{memory.surprise:.3g}"
        rows.append(
            [
                str(memory.level),
                every(memory.period),
                _name(memory),
                memory.model,
                f"{memory.count:,}",
                f"{memory.parameters:,}",
                readable_bytes(memory.bytes),
                *([surprise] if measured else []),
            ]
        )
    return _aligned(rows, right=range(4, len(rows[0])))


def _rules(system: NestedSystem) -> str:
    layers = [memory for memory in system.memories if memory.home == "weights"]
    rows = [["memory", "shown", "objective", "rule"]]
    for memory in system.memories:
        if memory in layers[1:]:
            continue  # all layers of a system follow one rule
        name = "each layer (W)" if memory in layers and len(layers) > 1 else _name(memory)
        rows.append([name, shown(memory), memory.objective, written(memory)])
    return _aligned(rows, caps={1: 38})


def _definitions(system: NestedSystem) -> list[str]:
    lines = []
    if system.where:
        lines.append(_wrap("where " + "; ".join(f"{name} = {text}" for name, text in system.where.items())))
    groups: Sequence[Mapping[str, Any]] = list({repr(group): group for group in system.settings if group}.values())
    for number, group in enumerate(groups):
        label = "with " if len(groups) == 1 else f"with, in group {number + 1} of {len(groups)}, "
        lines.append(_wrap(label + ", ".join(f"{name} {value}" for name, value in group.items())))
    return lines


def _name(memory: Memory) -> str:
    own = memory.name.rpartition(".")[2]
    return memory.name if memory.symbol in ("", own) else f"{memory.name} ({memory.symbol})"


def _wrap(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def _aligned(rows: list[list[str]], right: Sequence[int] = (), caps: Mapping[int, int] = MappingProxyType({})) -> str:
    """Columns as wide as their contents, at most ``caps``, the last one filling the line; other cells are wrapped."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    widths = [min(width, caps.get(column, width)) for column, width in enumerate(widths)]
    widths[-1] = min(widths[-1], max(30, WIDTH - sum(widths[:-1]) - len(GAP) * (len(widths) - 1)))
    lines = []
    for number, row in enumerate(rows):
        wrapped = [
            textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
            for text, width in zip(row, widths, strict=True)
        ]
        for part in zip_longest(*wrapped, fillvalue=""):
            cells = [
                text.rjust(width) if column in right else text.ljust(width)
                for column, (text, width) in enumerate(zip(part, widths, strict=True))
            ]
            lines.append(GAP.join(cells).rstrip())
        if number == 0:
            lines.append("-" * (sum(widths) + len(GAP) * (len(widths) - 1)))
    return "\n".join(lines)
