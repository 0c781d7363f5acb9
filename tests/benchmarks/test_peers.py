"""The parts of the comparison with other libraries that need none of them."""

import math
import os
import time

import pytest
import torch
from torch import nn

from benchmarks.optim.workloads import state_bytes, state_tensors
from benchmarks.peers.checks import nonfinite_gradients, run_checks
from benchmarks.peers.contenders import CONTENDERS
from benchmarks.peers.isolation import isolated
from benchmarks.peers.libraries import LIBRARIES, installed
from benchmarks.peers.quality import RETENTIONS, SAME, interval, refined
from benchmarks.peers.speed import ROWS


def test_the_interval_is_student_s() -> None:
    """Of 1, 2, 3: 2 +- 4.303 / sqrt(3)."""
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)))
    assert interval([1.0]) is None


@pytest.mark.parametrize("retentions", [RETENTIONS, (None,)])
def test_everyone_gets_as_many_new_trials(retentions: tuple[float | None, ...]) -> None:
    """Around a coarse trial at (0.1, first retention), five settings that were not tried."""
    assert len(set(refined(0.1, retentions)) - {(0.1, retentions[0])}) == 5


def test_state_is_found_wherever_it_lies_and_counted_once() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))])
    shared = torch.zeros(5)
    optimizer.state["a"] = {"x": shared, "y": [shared, (torch.zeros(3, dtype=torch.bfloat16),)], "step": 1}
    assert sorted(tensor.numel() for tensor in state_tensors(optimizer)) == [3, 5]
    assert state_bytes(optimizer) == 4 * 5 + 2 * 3


def test_the_tables_name_contenders_and_libraries_that_exist() -> None:
    named = {key for row in ROWS for key in (row.theirs, row.ours, row.torch)} | SAME.keys() | set(SAME.values())
    assert named <= CONTENDERS.keys()
    assert {contender.library for contender in CONTENDERS.values()} == LIBRARIES.keys()


def test_a_missing_library_is_said() -> None:
    found = installed()
    assert found["torch"]["problem"] is None
    assert all(entry["problem"] for entry in found.values() if entry["version"] is None)


@pytest.mark.slow
def test_what_happens_in_a_process_of_its_own_comes_back_as_data() -> None:
    assert isolated(abs, -3).value == 3
    assert isolated(int, "x").problem == "ValueError: invalid literal for int() with base 10: 'x'"
    assert "crashed" in str(isolated(os.abort).problem)
    assert "took over 1 s" in str(isolated(time.sleep, 5, seconds=1).problem)


@pytest.mark.slow
def test_the_drop_in_checks_of_torch() -> None:
    """Its documented behaviour: SGD passes all but float32 memories; Muon takes matrices only."""
    failed = {check for check, reason in run_checks("torch SGD").items() if reason}
    assert failed == {"float32 memories of bf16"}
    failed = {check for check, reason in run_checks("torch Muon").items() if reason}
    assert failed == {"0-D, 1-D, 2-D, 4-D", "float32 memories of bf16"}
    assert nonfinite_gradients("torch SGD") == "weights become NaN"
    assert nonfinite_gradients("nestlearn Muon") == "raises FloatingPointError"
