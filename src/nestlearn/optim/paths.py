"""Which rule and path writes which parameters, in words: what ``repr(optimizer)`` and ``nestlearn inspect`` say."""

import re
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from nestlearn.device import device_of
from nestlearn.memory.rules import Rule, always
from nestlearn.optim.adapter import Adapter
from nestlearn.optim.composed import Rules
from nestlearn.optim.lanes import SMALL, matrix_shape
from nestlearn.rules import Link
from nestlearn.rules.kernels import fits

__all__ = ["paths"]

MOST_SHAPES, MOST_LINES = 4, 12
"""More are counted."""

DTYPE = torch.float32
"""Of parameters whose type is not said."""


def paths(optimizer: Adapter) -> list[str]:
    """One line for each rule and path: the parameters that it writes, the rule, and how it is computed.

    Args:
        optimizer: whose parameters they are. On the meta device they stand for those of another.

    Example:
        >>> import nestlearn as nl
        >>> optimizer = nl.optim.Muon(torch.nn.Linear(64, 32).parameters())
        >>> for line in paths(optimizer):
        ...     print(line)
        1 parameter (32x64): chain(average(0.95, nesterov=True, name='momentum'), orthogonal()), batched matrices
        1 parameter (32): chain(average(corrected=True, name='momentum'), second_moment()), fused by torch

    Where names are known, they stand before the shapes, with a star for each number: ``2 of blocks.*.up.weight 64x16``.
    What follows the rule for single entries only because ``elementwise=`` names it has a line of its own.
    """
    found: dict[tuple[str, str, torch.dtype, bool], list[str]] = {}
    for group in optimizer.param_groups:
        rules, names = optimizer.rules(group), group.get("param_names", ())
        for place, parameter in enumerate(group["params"]):
            rule, how, shape = _path(optimizer, parameter, rules)
            chosen = parameter.ndim > 1 and optimizer.is_elementwise(parameter)
            size = "x".join(map(str, shape)) or "1"
            word = f"{_NUMBER.sub('*', names[place])} {size}" if place < len(names) else size
            found.setdefault((rule, how, parameter.dtype, chosen), []).append(word)
    lines = []
    for (rule, how, dtype, chosen), called in found.items():
        kind = "" if dtype is DTYPE else f" of {str(dtype).removeprefix('torch.')}"
        why = " by elementwise=" if chosen else ""
        lines.append(f"{_counted(called)}{kind}{why}: {rule}, {how}")
    more = len(lines) - MOST_LINES
    return lines if more <= 1 else [*lines[:MOST_LINES], f"{more} more rules and paths"]


def _path(optimizer: Adapter, parameter: Tensor, rules: Rules) -> tuple[str, str, tuple[int, ...]]:
    """The rule of a parameter, how it is computed, and the shape that it has there."""
    entry = optimizer.entry_of(parameter, rules)
    if not entry.flat:
        links = rules.matrix.everything() if isinstance(rules.matrix, Link) else ()
        departures = filter(None, (link.departs(torch.Size(entry.shape)) for link in links))
        return _words(rules.matrix), ", ".join(["batched matrices", *departures]), matrix_shape(parameter)
    words, shape = _words(rules.element), tuple(parameter.shape)
    if rules.kernel is not None and fits(rules.kernel, parameter, device_of(parameter).type):
        return words, rules.kernel.path, shape
    if parameter.numel() < SMALL:
        return words, "composed, joined", shape
    compiled = optimizer.compiles and rules.schedule(None) is always and parameter.is_contiguous()
    return words, "compiled" if compiled else "composed, in blocks", shape


def _words(rule: Link | Rule | None) -> str:
    return repr(rule) if isinstance(rule, Link) else type(rule).__name__


_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""Of a layer in a list: what stands between dots."""


def _counted(called: Iterable[str]) -> str:
    """How many parameters, and the names or shapes that most of them have."""
    counts = Counter(called)
    told = [each if times == 1 else f"{times} of {each}" for each, times in counts.most_common(MOST_SHAPES)]
    if len(counts) > MOST_SHAPES:
        told.append(f"{len(counts) - MOST_SHAPES} more {'names' if any(' ' in each for each in counts) else 'shapes'}")
    total = counts.total()
    return f"{total:,} parameter{'s' if total > 1 else ''} ({', '.join(told)})"
