"""A description as plain text: who is there and how large, and below it who is shown what and written by which rule."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

from nestlearn.descriptions.data import Data
from nestlearn.memory.described import Described

__all__ = [
    "MEASURED",
    "answer",
    "apart",
    "as_text",
    "began",
    "definitions",
    "every",
    "headline",
    "of_a_sequence",
    "readable_bytes",
    "readers",
    "short",
    "shown",
    "size",
    "tokens",
    "written",
]

WIDTH = 120
GAP = "  "
NARROW = 24
UNSAID = "unknown"

MEASURED: Mapping[str, str] = {
    "seen_inputs": "the covariance of what the layer is given",
    "seen_errors": "the covariance of the layer's error signals",
    "seen_hessian_diagonal": "z * (H z) with random signs z",
    "seen_gauss_newton_diagonal": "the squared gradient at labels drawn from the model",
    "seen_curvature_product": "H M(u), before M is written",
}
"""What is measured outside, by the names that expressions have for it."""


def as_text(system: Data, width: int = WIDTH) -> str:
    """The tables of a system, then those of the parameters that follow another rule.

    Args:
        system: what is described.
        width: of a line. A table that is wider leaves out columns, or has a line for each cell; words and numbers stay
            whole.
    """
    if not system.memories:
        return "\n".join([f"{system.name}: no memories", *(f"Note: {note}." for note in system.notes)])
    covers = f" for {system.covers}" if system.covers else ""
    state = f"{readable_bytes(system.state_bytes)} of state{' in all' if system.others else ''}"
    blocks = [_wrap(f"{headline(system)}{covers}; {state}{_of_a_sequence(system)}", width)]
    for part in system.everything:
        heading = [] if part is system else [f"{apart(part, system)}:"]
        blocks += [*heading, _sizes(part, width), _rules(part, width), _by_tokens(part, width)]
        blocks += [*_definitions(part, width), *(_wrap(f"Note: {note}.", width) for note in part.notes)]
    return "\n\n".join(block for block in blocks if block)


def headline(system: Data) -> str:
    """'AdamW: 3 memories on 2 levels'."""
    memories, levels = len(system.memories), len(system.levels)
    words = f"{memories} {'memory' if memories == 1 else 'memories'} on {levels} level{'' if levels == 1 else 's'}"
    return f"{system.name}: {words}"


def apart(part: Data, system: Data) -> str:
    """The heading of parameters that follow another rule than the main ones."""
    return f"Apart from these, {part.covers}{'' if part.name == system.name else f', with {part.name}'}"


def every(memory: Described) -> str:
    """A pace in words: 'every step', 'every 64 tokens'."""
    return f"every {memory.unit}" if memory.period == 1 else f"every {memory.period} {memory.unit}s"


def of_a_sequence(system: Data) -> str:
    """The state of one sequence: '319.0 KiB', and with memories that grow '1.0 KiB a token'; empty if there is none."""
    parts = [(system.sequence_bytes, ""), (system.bytes_per_token, " a token")]
    return " and ".join(f"{readable_bytes(count)}{words}" for count, words in parts if count)


def _of_a_sequence(system: Data) -> str:
    words = of_a_sequence(system)
    return f", and {words} for each sequence" if words else ""


def tokens(system: Data) -> list[Described]:
    """The memories that tokens write."""
    return [memory for memory in system.memories if memory.unit == "token"]


def readable_bytes(count: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit returns")


def size(memory: Described) -> str:
    """'16.0 KiB', or '512 B a token' of a memory that grows."""
    return (
        f"{readable_bytes(memory.bytes_per_token)} a token" if memory.bytes_per_token else readable_bytes(memory.bytes)
    )


def written(memory: Described) -> str:
    """How a memory is written, in a line: the rule, its rate and what it keeps, the read-out."""
    words = [memory.rule]
    if memory.home == "weights" and memory.lr:
        formula = memory.update or "u"
        update = formula if formula.isidentifier() else f"({formula})"
        kept = "W" if memory.retention == "1" else f"({memory.retention}) W"
        rate = memory.lr if memory.lr.isidentifier() else f"({memory.lr})"
        words = [f"W <- {kept} - {update}" if memory.lr == "1" else f"W <- {kept} - {rate} {update}"]
    elif memory.lr:
        words += [f"lr {memory.lr}"] if memory.lr != "1" or memory.retention == "1" else []
        words += [f"retention {memory.retention}"] if memory.retention != "1" else []
        words += [f"update {memory.update}"] if memory.update else []
    if memory.unit == "token":
        return ", ".join(words)  # what it starts from, is asked and answers has a place of its own
    if memory.initial not in ("", "0"):
        words.append(f"starts at {memory.initial}")
    if memory.query:
        words.append(f"asked about {memory.query}")
    if not memory.fresh and memory.consulted_by:
        words.append("read before its write")
    if memory.readout:
        words.append(f"read as {memory.readout}" + (f" every {memory.refresh} writes" if memory.refresh > 1 else ""))
    if not memory.collects:
        words.append("shown the first pair of a period")
    elif memory.first_answer:
        words.append(f"answers {memory.first_answer} at first")
    return ", ".join(words)


def shown(memory: Described) -> str:
    """The pair that a memory is shown; a box has no key."""
    return memory.value if memory.key == "none" else f"{memory.key} -> {memory.value}"


def _sizes(system: Data, width: int) -> str:
    measured = any(memory.surprise is not None for memory in system.memories)
    rows = [["level", "written", "memory", "model", "count", "entries", "bytes", *(["surprise"] if measured else [])]]
    for memory in system.memories:
        surprise = "-" if memory.surprise is None else f"{memory.surprise:.3g}"
        rows.append(
            [
                str(memory.level),
                every(memory),
                _name(memory),
                memory.model,
                f"{memory.count:,}",
                f"{memory.parameters:,}",
                size(memory),
                *([surprise] if measured else []),
            ]
        )
    return _aligned(rows, width, right=range(4, len(rows[0])), gives=3, drops=("model", "count", "entries"))


def _rules(system: Data, width: int) -> str:
    rows: dict[tuple[str, ...], list[Described]] = {}
    for memory in system.memories:
        # All layers of a system follow one rule, and so do many memories of one sequence layer.
        where = "" if memory.home == "weights" else _home(memory) if memory.unit == "token" else memory.name
        rows.setdefault((memory.home, where, shown(memory), memory.objective, written(memory)), []).append(memory)
    table = [["memory", "shown", "objective", "rule"]]
    for (_, where, *facts), members in rows.items():
        names = [_name(members[0]), *(_within(memory.name, where) for memory in members[1:])]
        several = "each layer (W)" if members[0].home == "weights" and len(members) > 1 else ", ".join(names)
        table.append([several, *facts])
    return _aligned(table, width, caps={0: 42, 1: 38})


def _home(memory: Described) -> str:
    """What the names of all memories of one sequence layer begin with."""
    return (memory.consulted_by or memory.name).rpartition(".")[0]


def _within(name: str, where: str) -> str:
    """A name without what it begins with."""
    return name.removeprefix(f"{where}.") if where else name


def _by_tokens(system: Data, width: int) -> str:
    """Where the memories of a sequence start, what they are asked, and who reads the answer."""
    rows = [["by tokens", "starts at", "chunk", "asked", "answers", "to"]]
    for memory in tokens(system):
        chunk = str(memory.chunk) if memory.chunk > 1 else "-"
        rows.append([_name(memory), began(memory), chunk, memory.query or "-", answer(memory), readers(memory)])
    if len(rows) == 1:
        return ""
    return f"{_aligned(rows, width, right=[2], gives=1)}\n\n{_wrap(_legend(tokens(system)), width)}"


def _legend(memories: Sequence[Described]) -> str:
    """The words that these memories use, explained."""
    words = ["x is what a layer is given, and k, v, q, eta, alpha and theta are what it makes of a token"]
    if any("M(v)" in memory.value for memory in memories):
        words[0] += "; M(v) is what a memory answers to v itself"
    if any("start(" in memory.value for memory in memories):
        words[0] += "; start(k) is what it would have answered before all writes"
    if any(memory.chunk > 1 for memory in memories):
        words += ["In a chunk, gradients and what memories answer each other are taken at the state of its start"]
    words += ["Every sequence has memories of its own; a step of the optimizer sees all tokens of its batch"]
    return f"By tokens: {'. '.join(words)}."


def began(memory: Described) -> str:
    """What a memory of a sequence holds before the first token."""
    if memory.max_tokens:
        most = readable_bytes(memory.bytes_per_token * memory.max_tokens)
        return f"nothing, grows to {most} at {memory.max_tokens:,} tokens"
    return ", ".join(memory.starts_from) or memory.initial or UNSAID


def answer(memory: Described) -> str:
    """What a memory of a sequence answers: y where the layer makes its own answer of it."""
    return memory.readout or ((memory.symbol or "M") if memory.consulted_by else "y")


def readers(memory: Described) -> str:
    """Whose writes depend on its answer, in the words of their layer."""
    names = memory.read_by or ((memory.consulted_by,) if memory.consulted_by else ())
    return ", ".join(map(short, names)) or "the layer"


def short(name: str) -> str:
    """The end of a name that says which one it is: 'k', 'blocks.0'."""
    above, _, own = name.rpartition(".")
    return f"{above.rpartition('.')[2]}.{own}" if above and own.isdigit() else own


def definitions(system: Data) -> dict[str, str]:
    """What expressions call by a name: those of the description, what is measured, and g where it is a sum."""
    texts = [text for each in system.memories for text in (each.key, each.value, each.update)]
    seen = {name: words for name, words in MEASURED.items() if any(name in text for text in texts)}
    period = max((memory.period for memory in system.memories if memory.home == "weights"), default=1)
    summed = {"g": f"the sum of the gradients of {period} steps"} if period > 1 and system.where else {}
    return {**system.where, **seen, **summed}


def _definitions(system: Data, width: int) -> list[str]:
    lines = []
    if system.where:
        lines.append(
            _wrap("where " + "; ".join(f"{name} = {text}" for name, text in definitions(system).items()), width)
        )
    groups: Sequence[Mapping[str, Any]] = list({repr(group): group for group in system.settings if group}.values())
    for number, group in enumerate(groups):
        label = "with " if len(groups) == 1 else f"with, in group {number + 1} of {len(groups)}, "
        lines.append(_wrap(label + ", ".join(f"{name} {value}" for name, value in group.items()), width))
    return lines


def _name(memory: Described) -> str:
    return (
        memory.name
        if f".{memory.name}".endswith(f".{memory.symbol}") or not memory.symbol
        else f"{memory.name} ({memory.symbol})"
    )


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def _lines(text: str, width: int) -> list[str]:
    """Text in lines of a width; a word that is longer, a nested call, is broken behind its parentheses."""
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    if all(len(line) <= width for line in lines):
        return lines
    return _Calls(width, break_long_words=False, break_on_hyphens=False).wrap(text)


class _Calls(textwrap.TextWrapper):
    wordsep_simple_re = re.compile(r"(\s+|(?<=\())")


def _aligned(
    rows: list[list[str]],
    width: int,
    right: Sequence[int] = (),
    caps: Mapping[int, int] = MappingProxyType({}),
    gives: int = -1,
    drops: Sequence[str] = (),
) -> str:
    """Columns as wide as their contents, at most ``caps``; the column ``gives`` fits the line. Cells are wrapped.

    Where that is not enough, the columns with the headings ``drops`` are left out, one after the other; without these
    each row becomes a few lines.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    widths = [min(wide, caps.get(column, wide)) for column, wide in enumerate(widths)]
    over = sum(widths) + len(GAP) * (len(widths) - 1) - width
    least = max(len(word) for row in rows for word in row[gives].split() or [""]) if width < WIDTH else 0
    widths[gives] = min(widths[gives], max(NARROW, least, widths[gives] - over))
    if width < WIDTH and sum(widths) + len(GAP) * (len(widths) - 1) > width:
        if left := [heading for heading in drops if heading in rows[0]]:
            gone = rows[0].index(left[0])
            numbers = [column - (column > gone) for column in right if column != gone]
            fewer = [row[:gone] + row[gone + 1 :] for row in rows]
            return _aligned(fewer, width, numbers, gives=2, drops=left[1:])
        return _records(rows, width)
    lines = []
    for number, row in enumerate(rows):
        wrapped = [_lines(text, wide) or [""] for text, wide in zip(row, widths, strict=True)]
        for part in zip_longest(*wrapped, fillvalue=""):
            cells = [
                text.rjust(wide) if column in right else text.ljust(wide)
                for column, (text, wide) in enumerate(zip(part, widths, strict=True))
            ]
            lines.append(GAP.join(cells).rstrip())
        if number == 0:
            lines.append("-" * (sum(widths) + len(GAP) * (len(widths) - 1)))
    return "\n".join(lines)


def _records(rows: list[list[str]], width: int) -> str:
    """Each row as its first cell, and below it a line for each of the others, with its heading."""
    (first, *headings), *others = rows
    indent = max(map(len, headings)) + 2 * len(GAP)
    lines = [first, "-" * width]
    for name, *cells in others:
        lines += _lines(name, width)
        for heading, cell in zip(headings, cells, strict=True):
            begin = f"{GAP}{heading}".ljust(indent)
            for text in _lines(cell, width - indent):
                lines.append(f"{begin}{text}")
                begin = " " * indent
    return "\n".join(lines)
