"""The parts of the comparison of the optimizers with themselves that need no quiet machine."""

import pytest
import torch
from contract.members import exported_optimizers

import nestlearn as nl
from benchmarks.optim.against import ROOT, Pair, Tree, Trio, compare, difference, pairs, pooled, trios
from benchmarks.optim.cases import CASES, Case
from benchmarks.optim.rows import rows
from benchmarks.optim.timing import Measurement, alternate
from benchmarks.optim.worker import Worker
from benchmarks.optim.workloads import WORKLOADS


def test_every_optimizer_is_a_case_on_workloads_that_exist():
    assert {case.name for case in CASES} == exported_optimizers().keys()
    assert {name for case in CASES for name in case.workloads} <= WORKLOADS.keys()
    assert {(pair.case, pair.composed) for pair in pairs()} == {(case, way) for case in CASES for way in (True, False)}


def test_every_class_has_a_bar_on_a_thousand_groups():
    found = [row for row in rows() if row.workload.groups and row.bar is not None]
    assert [row.ours for row in found] == list(map(str, CASES))
    (group,) = WORKLOADS["1,000 groups of one 4x4"].given([torch.nn.Parameter(torch.ones(4, 4))])
    assert list(group) == ["params"]


def test_weights_are_apart_by_their_largest_difference_and_a_nan_is_no_equality():
    ones, weights = [torch.ones(2), torch.ones(3)], [torch.ones(2), torch.tensor([1.0, 2.0, 4.0])]
    assert difference(ones, ones) == 0 and difference(ones, weights) == 0.75
    assert difference(ones, [torch.full((2,), float("nan")), torch.ones(3)]) != 0


def test_clocks_take_turns_and_are_asked_for_whole_cycles():
    asked = []
    clocks = [lambda runs, name=name: asked.append((name, runs)) or runs * 0.5e-3 for name in "ab"]
    measured = alternate(*clocks, rounds=2, cycle=3, target_ms=4)
    assert asked[-4:] == [("a", 9), ("b", 9)] * 2 and measured.ratios == [1, 1]


def test_what_several_processes_measured_is_pooled():
    one, two = Measurement([1.0, 2.0], 3.0, 5.0, 7), Measurement([4.0], 5.0, 9.0, 7)
    assert pooled([one, two]) == Measurement([1.0, 2.0, 4.0], 4.0, 7.0, 7)


class Here:
    """A worker in this process."""

    def __init__(self):
        self.worker = Worker()
        self.run = self.worker.run

    def ask(self, name, *arguments):
        return getattr(self.worker, name)(*arguments)


@pytest.mark.parametrize("composed", [False, True])
def test_an_optimizer_is_timed_against_itself(composed):
    (case,) = (case for case in CASES if case.name == "Muon")
    trio = Trio(Here(), Here(), Here())
    (row,) = compare([Pair(case, WORKLOADS["24 of 32x32"], composed)], [trio], rounds=2, target_ms=1)
    assert row["error"] == 0 and row["ratio"] > 0 and row["ours_state_bytes"] == row["reference_state_bytes"] > 0
    assert (trio.twin.worker if composed else trio.before.worker).optimizer.__class__ is nl.optim.Muon
    assert (trio.ours.worker.optimizer.__class__ is nl.optim.Optimizer) is composed


def test_nothing_is_timed_where_weights_differ(monkeypatch):
    rates = iter((0.5, 0.4))
    monkeypatch.setattr(Case, "build", lambda self, parameters: torch.optim.SGD(parameters, lr=next(rates)))
    (row,) = compare(
        [Pair(CASES[0], WORKLOADS["24 of 32x32"], False)], [Trio(Here(), Here(), Here())], rounds=2, target_ms=1
    )
    assert row["error"] > 0 and "ratio" not in row


@pytest.mark.slow
def test_trees_are_timed_in_processes_of_their_own():
    (chosen,) = (pair for pair in pairs("LayerMomentum(model) 8 of") if not pair.composed)
    with trios(ROOT, 1) as processes:
        assert len({tree.process.pid for tree in vars(processes[0]).values()}) == 3
        (row,) = compare([chosen], processes, rounds=2, target_ms=1)
    assert row["error"] == 0 and row["rounds"] == 2


@pytest.mark.slow
def test_another_nestlearn_than_that_of_the_checkout_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected nestlearn in"), Tree(tmp_path):
        pass
