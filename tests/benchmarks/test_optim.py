"""The parts of the comparison of the optimizers with themselves that need no quiet machine."""

import pytest
import torch
from contract.members import exported_optimizers

from benchmarks.optim.against import CLASS, ROOT, Tree, compare, difference, pairs, pooled
from benchmarks.optim.cases import CASES, Case
from benchmarks.optim.timing import Measurement, alternate
from benchmarks.optim.workloads import WORKLOADS


def test_every_optimizer_is_a_case_on_workloads_that_exist():
    assert {case.name for case in CASES} == exported_optimizers().keys()
    assert {name for case in CASES for name in case.workloads} <= WORKLOADS.keys()
    assert len(pairs()) == 2 * sum(len(case.workloads) for case in CASES)


def test_weights_are_apart_by_their_largest_difference_and_a_nan_is_no_equality():
    ones, weights = [torch.ones(2), torch.ones(3)], [torch.ones(2), torch.tensor([1.0, 2.0, 4.0])]
    assert difference(ones, ones) == 0 and difference(ones, weights) == 0.75
    assert difference(ones, [torch.full((2,), float("nan")), torch.ones(3)]) != 0


def test_clocks_take_turns_and_are_asked_for_whole_cycles():
    asked = []
    clocks = [lambda runs, name=name: asked.append((name, runs)) or runs * 0.5e-3 for name in "ab"]
    measured = alternate(*clocks, rounds=2, cycle=3, target_ms=4)
    assert asked[-4:] == [("a", 9), ("b", 9)] * 2 and measured.ratios == [1, 1]


def test_couples_are_pooled():
    one, two = Measurement([1.0, 2.0], 3.0, 5.0, 7), Measurement([4.0], 5.0, 9.0, 7)
    assert pooled([one, two]) == Measurement([1.0, 2.0, 4.0], 4.0, 7.0, 7)


@pytest.mark.slow
def test_a_composed_optimizer_is_timed_against_its_class():
    (row,) = compare(pairs("Muon, composed 200 small"), [(None, None)], rounds=2, target_ms=1)
    assert row["reference"] == CLASS and row["error"] == 0 and row["ratio"] > 0


def test_nothing_is_timed_where_weights_differ(monkeypatch):
    monkeypatch.setattr(Case, "build", lambda self, parameters: torch.optim.SGD(parameters, lr=0.5))
    monkeypatch.setattr("benchmarks.optim.against.composed", lambda case: lambda p: torch.optim.SGD(p, lr=0.4))
    (row,) = compare(pairs("Muon, composed 200 small"), [(None, None)], rounds=2, target_ms=1)
    assert row["error"] > 0 and "ratio" not in row


@pytest.mark.slow
def test_a_tree_is_timed_against_itself_in_processes_of_their_own():
    chosen = pairs("LayerMomentum(model) 8 of")
    with Tree(ROOT) as ours, Tree(ROOT) as before:
        assert ours.process.pid != before.process.pid
        (row,) = compare(chosen, [(ours, before)], rounds=2, target_ms=1)
    assert row["error"] == 0 and row["rounds"] == 2 and row["ours_state_bytes"] == row["reference_state_bytes"] > 0


@pytest.mark.slow
def test_another_nestlearn_than_that_of_the_checkout_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected nestlearn in"), Tree(tmp_path):
        pass
