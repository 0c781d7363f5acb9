"""The six languages: strings of a length, and what may follow every prefix (arXiv 2009.11264).

Which symbols may come next, and whether the string may end here, follows in all six from how often each symbol stood
in the prefix. ``Language.legal`` says how; the strings themselves are drawn apart from that.

========  =======================================  ===========================================
name      strings                                  what it takes to know what may follow
========  =======================================  ===========================================
parity    of a and b, an even number of b          one bit, flipped by every b
aa        (aa)*                                    one bit, flipped by every token
abab      (abab)*                                  a position modulo 4
anbn      a^n b^n                                  a counter
anbncn    a^n b^n c^n                              two counters
shuffle2  "()" and "[]", each balanced by itself,  two counters, up and down
          written a b and c d
========  =======================================  ===========================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import one_hot

__all__ = ["ANSWERS", "LANGUAGES", "SYMBOLS", "Language", "Strings", "every", "sample"]

SYMBOLS = "abcd"
ANSWERS = len(SYMBOLS) + 1
"""What is predicted of every prefix: each symbol, and the end."""


@dataclass(frozen=True)
class Strings:
    """A batch: tokens [batch, time], numbers of symbols; legal [batch, time, ANSWERS]; inside [batch, time].

    ``legal[:, t]`` is what may follow token t. Both are meaningless where ``inside`` is false: after the end.
    """

    tokens: Tensor
    legal: Tensor
    inside: Tensor


@dataclass(frozen=True)
class Language:
    """Strings whose lengths are multiples of ``unit``.

    Attributes:
        unit: of the lengths.
        write: (lengths [batch], generator) -> tokens [batch, longest].
        legal: counts of a, b, c and d in the prefix, each [batch, time] -> the same for each symbol and the end.
        unique: whether there is only one string of each length.
    """

    unit: int
    write: Callable[[Tensor, torch.Generator], Tensor]
    legal: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, ...]]
    unique: bool = True


def sample(name: str, count: int, shortest: int, longest: int, generator: torch.Generator) -> Strings:
    """``count`` strings; every length that there is between the two bounds is as likely as every other."""
    unit = LANGUAGES[name].unit
    units = torch.randint(-(-shortest // unit), longest // unit + 1, (count,), generator=generator)
    return _strings(LANGUAGES[name], units * unit, generator)


def every(name: str, shortest: int, longest: int) -> Strings:
    """Each string between these lengths once; ValueError for a language with several of one length."""
    language = LANGUAGES[name]
    if not language.unique:
        raise ValueError(f"{name}: expected a language with one string of each length; draw a sample of this one")
    units = torch.arange(-(-shortest // language.unit), longest // language.unit + 1)
    return _strings(language, units * language.unit, torch.Generator())


def _strings(language: Language, lengths: Tensor, generator: torch.Generator) -> Strings:
    tokens = language.write(lengths, generator)
    inside = torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)
    counts = one_hot(tokens, len(SYMBOLS)).cumsum(1).unbind(-1)
    return Strings(tokens, torch.stack(language.legal(*counts), -1), inside)


def _places(lengths: Tensor) -> Tensor:
    return torch.arange(int(lengths.max())).expand(len(lengths), -1)


def _even(lengths: Tensor, generator: torch.Generator) -> Tensor:
    """Coins, one of which is turned if the number of b is odd."""
    places = _places(lengths)
    coins = torch.randint(2, places.shape, generator=generator) * (places < lengths.unsqueeze(1))
    turned = (torch.rand(len(lengths), generator=generator) * lengths).long()
    odd = coins.sum(1) % 2
    return coins ^ (one_hot(turned, places.shape[1]) * odd.unsqueeze(1))


def _alternating(period: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    return lambda lengths, _: _places(lengths) % period


def _in_runs(runs: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    def write(lengths: Tensor, _: torch.Generator) -> Tensor:
        return (_places(lengths) * runs // lengths.unsqueeze(1)).clamp_max(runs - 1)

    return write


def _shuffled(lengths: Tensor, generator: torch.Generator) -> Tensor:
    """Any nesting of a length is as likely as any other; what is opened or closed is drawn from what there is.

    Of the balanced continuations of h open brackets by r more, (h + 2) (r - h) in 2 r (h + 1) begin with another one.
    """
    places = _places(lengths)
    up, kind = (torch.rand(places.shape, generator=generator) for _ in range(2))
    open_brackets = torch.zeros(len(lengths), 2, dtype=torch.long)
    written = []
    for place in range(places.shape[1]):
        total, rest = open_brackets.sum(1), (lengths - place).clamp_min(1)
        opens = up[:, place] * 2 * rest * (total + 1) < (total + 2) * (rest - total)
        share = torch.where(opens, 0.5, (open_brackets[:, 0] > 0) / (open_brackets > 0).sum(1).clamp_min(1))
        square = (kind[:, place] >= share).long()
        open_brackets = open_brackets + one_hot(square, 2) * torch.where(opens, 1, -1).unsqueeze(1)
        written.append(2 * square + (~opens).long())
    return torch.stack(written, 1)


def _never(like: Tensor) -> Tensor:
    return torch.zeros_like(like, dtype=torch.bool)


LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {
        "parity": Language(
            1,
            _even,
            lambda a, b, c, d: (a >= 0, b >= 0, _never(c), _never(d), b % 2 == 0),
            unique=False,
        ),
        "aa": Language(
            2,
            _alternating(1),
            lambda a, b, c, d: (a >= 0, _never(b), _never(c), _never(d), a % 2 == 0),
        ),
        "abab": Language(
            4,
            _alternating(2),
            lambda a, b, c, d: (a == b, a > b, _never(c), _never(d), (a == b) & (a % 2 == 0)),
        ),
        "anbn": Language(
            2,
            _in_runs(2),
            lambda a, b, c, d: (b == 0, a > b, _never(c), _never(d), a == b),
        ),
        "anbncn": Language(
            3,
            _in_runs(3),
            lambda a, b, c, d: (b == 0, a > b, (a == b) & (b > c), _never(d), (a == b) & (b == c)),
        ),
        "shuffle2": Language(
            2,
            _shuffled,
            lambda a, b, c, d: (a >= 0, a > b, c >= 0, c > d, (a == b) & (c == d)),
            unique=False,
        ),
    }
)
"""The languages by name."""
