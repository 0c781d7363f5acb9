"""The drivers of benchmarks/hosts notice what goes wrong, and the table has everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from contract.members import exported_optimizers

from benchmarks.hosts.__main__ import RESULTS, WORKS, tried
from benchmarks.hosts.choices import CHOICES, Choice
from benchmarks.hosts.common import Mode
from benchmarks.hosts.modes import MODES

# Three of the cheap hosts, which need no package.
CHEAP = [mode for mode in MODES if not mode.packages and mode.host != "torch.compile"]


class Forgetful(torch.optim.SGD):
    """It loses its momentum when it is loaded."""

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self.state.clear()


class Impatient(torch.optim.SGD):
    """It takes a step as soon as it is made, and so is not a plain loop's."""

    made = 0

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        type(self).made += 1
        if type(self).made == 1:
            with torch.no_grad():
                self.param_groups[0]["params"][0].add_(1.0)


def test_there_are_cheap_hosts() -> None:
    assert {mode.host for mode in CHEAP} == {"GradScaler", "AveragedModel"}


@pytest.mark.parametrize("mode", CHEAP, ids=str)
def test_lost_state_is_noticed(mode: Mode, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"the resumed run: (state of other names|.* differ)"):
        mode.run(Choice("forgetful", Forgetful, {"momentum": 0.9}), tmp_path)


@pytest.mark.parametrize("mode", CHEAP, ids=str)
def test_another_run_than_that_of_a_plain_loop_is_noticed(mode: Mode, tmp_path: Path) -> None:
    Impatient.made = 0
    with pytest.raises(AssertionError, match="a plain loop"):
        mode.run(Choice("impatient", Impatient), tmp_path)


def test_a_failure_is_told_in_its_first_sentence() -> None:
    forgetful = Choice("forgetful", Forgetful, {"momentum": 0.9})
    assert tried(CHEAP[0], forgetful).startswith("the resumed run: ")
    assert tried(CHEAP[0], CHOICES[-1]) == CHEAP[0].refuses
    assert tried(CHEAP[0], CHOICES[1]) == WORKS


def test_every_optimizer_is_put_into_hosts() -> None:
    assert {choice.kind.__name__ for choice in CHOICES if choice.ours} == set(exported_optimizers())


def test_the_record_has_every_cell_and_nothing_fails_but_curvature_where_no_closure_gets_through() -> None:
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    expected = {
        str(mode): {str(choice): mode.refuses if choice.closure and mode.refuses else WORKS for choice in CHOICES}
        for mode in MODES
    }
    assert record.keys() == expected.keys()
    for mode, row in record.items():
        assert row["found"].keys() == expected[mode].keys()
        for choice, said in row["found"].items():
            assert expected[mode][choice] in said, (mode, choice)
