"""The six languages against recognisers written apart from them, and the scoring against counting by hand."""

import itertools
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from experiments.sequence.formal_languages.contenders import CONTENDERS
from experiments.sequence.formal_languages.languages import ANSWERS, LANGUAGES, SYMBOLS, Strings, every, sample
from experiments.sequence.formal_languages.training import BINS, SOLVED, Job, accuracy, judge, strings_of

END = "$"
NAMES = list(LANGUAGES)


def _balanced(word: str) -> bool:
    """Each kind of bracket by itself, by crossing out neighbours that match."""
    for kind in ("ab", "cd"):
        left = "".join(letter for letter in word if letter in kind)
        while kind in left:
            left = left.replace(kind, "")
        if left:
            return False
    return True


RECOGNISERS: dict[str, tuple[str, int, Callable[[str], bool]]] = {
    "parity": ("ab", 8, lambda w: re.fullmatch("(a*ba*b)*a*", w) is not None),
    "aa": ("a", 12, lambda w: re.fullmatch("(aa)*", w) is not None),
    "abab": ("ab", 12, lambda w: re.fullmatch("(abab)*", w) is not None),
    "anbn": ("ab", 12, lambda w: w == "a" * (len(w) // 2) + "b" * (len(w) // 2)),
    "anbncn": ("abc", 9, lambda w: w == "a" * (len(w) // 3) + "b" * (len(w) // 3) + "c" * (len(w) // 3)),
    "shuffle2": ("abcd", 8, _balanced),
}
"""Of each language its alphabet, the length to which all words are tried, and whether a word is in it."""


def _words(strings: Strings) -> list[str]:
    return [
        "".join(SYMBOLS[token] for token in tokens[inside].tolist())
        for tokens, inside in zip(strings.tokens, strings.inside, strict=True)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_what_may_follow_is_what_some_word_of_the_language_has_there(name: str) -> None:
    alphabet, longest, accepts = RECOGNISERS[name]
    words = {
        "".join(letters)
        for length in range(1, longest + 1)
        for letters in itertools.product(alphabet, repeat=length)
        if accepts("".join(letters))
    }
    follow: dict[str, set[str]] = {}
    for word in words:
        for place in range(1, len(word) + 1):
            follow.setdefault(word[:place], set()).add((word + END)[place])
    # Words of half the length: whatever may follow their prefixes is begun by a word that was tried.
    strings = sample(name, 300, 1, longest // 2, torch.Generator().manual_seed(0))
    found = _words(strings)
    assert set(found) <= words
    for word, legal in zip(found, strings.legal, strict=True):
        for place in range(len(word)):
            told = {letter for letter, flag in zip(SYMBOLS + END, legal[place].tolist(), strict=True) if flag}
            assert told == follow[word[: place + 1]], (word, place)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shortest", "longest"), BINS)
def test_long_strings_are_of_the_language_and_of_every_length(name: str, shortest: int, longest: int) -> None:
    found = _words(sample(name, 600, shortest, longest, torch.Generator().manual_seed(1)))
    assert all(RECOGNISERS[name][2](word) for word in found)
    lengths = {len(word) for word in found}
    possible = [length for length in range(shortest, longest + 1) if length % LANGUAGES[name].unit == 0]
    assert lengths <= set(possible) and len(lengths) > 0.9 * len(possible)


def test_a_seed_gives_the_same_strings_and_another_seed_others() -> None:
    first, again, other = (sample("shuffle2", 20, 2, 50, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(first.tokens, again.tokens) and _words(first) != _words(other)


def test_brackets_nest_and_interleave() -> None:
    found = _words(sample("shuffle2", 300, 20, 40, torch.Generator().manual_seed(0)))
    assert any("aaa" in word for word in found)
    assert any(re.search("a[^b]*c[^d]*b", word) for word in found)  # closed across one another


def test_every_string_of_a_language_with_one_of_each_length() -> None:
    assert _words(every("anbncn", 2, 10)) == ["abc", "aabbcc", "aaabbbccc"]
    assert _words(every("abab", 51, 60)) == ["abab" * 13, "abab" * 14, "abab" * 15]
    with pytest.raises(ValueError, match="parity"):
        every("parity", 2, 10)


class _Oracle(nn.Module):
    """Knows anbn, except that it lets a string of more than ``limit`` tokens never end."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, tokens: Tensor) -> Tensor:
        counts = one_hot(tokens, len(SYMBOLS)).cumsum(1).unbind(-1)
        legal = torch.stack(LANGUAGES["anbn"].legal(*counts), -1)
        legal[:, self.limit :, -1] = False
        return legal.float() - 0.5


def test_a_string_counts_only_if_right_at_every_position() -> None:
    strings = strings_of("anbn", 0, 2, 50, 0)
    assert len(strings.tokens) == 25
    assert accuracy(_Oracle(50), strings) == 100
    assert accuracy(_Oracle(30), strings) == pytest.approx(100 * 15 / 25)
    assert accuracy(_Oracle(0), strings) == 0
    # What a model says after the end of a shorter string is not looked at.
    strings.legal[0, 2:] = ~strings.legal[0, 2:]
    assert accuracy(_Oracle(50), strings) == 100


@pytest.mark.slow
def test_a_run_learns_and_can_be_repeated() -> None:
    long, short = (Job("LSTM", "parity", 2e-2, seed=0, steps=steps, strings=10, bins=2) for steps in (40, 1))
    result = judge(long)
    assert result == judge(long)
    assert result["loss"] < 0.5 * judge(short)["loss"]
    assert result["trained"] == 40 and len(result["right"]) == 2


@pytest.mark.slow
def test_training_ends_early_only_where_the_check_strings_are_right() -> None:
    result = judge(Job("DeltaNet, max_eta 2", "aa", 1e-2, seed=0, steps=400, bins=1))
    assert result["trained"] < 400
    assert result["loss"] < SOLVED and result["right"] == [100]


def test_every_contender_answers_each_prefix_without_a_look_ahead() -> None:
    tokens = sample("shuffle2", 3, 40, 50, torch.Generator().manual_seed(0)).tokens
    changed = tokens.clone()
    changed[:, 35:] = 3 - changed[:, 35:]
    for name, contender in CONTENDERS.items():
        model = contender.build()
        with torch.no_grad():
            before, after = model(tokens), model(changed)
        assert before.shape == (*tokens.shape, ANSWERS), name
        assert torch.allclose(before[:, :35], after[:, :35], atol=1e-5), name
        assert not torch.allclose(before[:, 35:], after[:, 35:], atol=1e-3), name
