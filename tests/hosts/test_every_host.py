"""Every optimizer trains, saves and resumes in every host to the bits of the run that was not interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from needed import needs

from benchmarks.hosts.choices import CHOICES, Choice
from benchmarks.hosts.common import Mode
from benchmarks.hosts.modes import MODES

COVER = 3
"""Of the ways that are not cheap, beyond the first of a host, each takes every third optimizer, another third each."""


def chosen() -> list[Any]:
    """Every optimizer in every cheap way and in the first of every host, and the others such that each way occurs; one
    in each cheap way is fast, another one each.
    """
    pairs = []
    for number, mode in enumerate(MODES):
        first = all(mode.host != before.host for before in MODES[:number])
        step = COVER if mode.costly and not first else 1
        choices = CHOICES[number % step :: step]
        fast = choices[number % len(choices)]
        pairs += [
            pytest.param(mode, one, marks=() if one is fast and not mode.costly else pytest.mark.slow)
            for one in choices
        ]
    return pairs


# What hosts and their libraries deprecate of their own is theirs to mend.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
# The compiler looks at the gradient of what is between two layers, where a layer that is watched divides its graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(("mode", "choice"), chosen(), ids=str)
def test_a_run_that_was_resumed_has_the_bits_of_one_that_was_not(mode: Mode, choice: Choice, tmp_path: Path) -> None:
    needs(*mode.packages)
    if choice.closure and mode.refuses:
        with pytest.raises(RuntimeError, match=mode.refuses):
            mode.run(choice, tmp_path)
    else:
        mode.run(choice, tmp_path)
