"""Every planted fault is found by the checks that are about it, and by no other."""

from __future__ import annotations

import pytest

from nestlearn.check import CHECKS, check

from . import broken

BY = {
    broken.Sound: set(),
    broken.StateLostInCopies: {"deep-copied", "pickled"},
    broken.HiddenMemory: {"round-trip", "rolled-back", "deep-copied", "pickled", "by-name"},
    broken.GradientsChanged: {"gradients-kept"},
    broken.NotAtZero: {"zero-step", "asked-early", "by-name"},
    broken.OrderCounts: {"order"},
    broken.AddedDecayForgotten: {"group-decay"},
    broken.RateOfTheStart: {"group-rate", "schedule"},
    broken.RateUnchecked: {"negative-rate"},
    broken.Poisoned: {"nonfinite"},
    broken.ClosureSwallowed: {"closure"},
    broken.DecaysWithoutGradient: {"no-gradients", "missing-gradient", "frozen"},
    broken.StateForgotten: {"added-group"},
    broken.NamesRefused: {"named-parameters"},
    broken.NoBfloat16: {"half-round-trip"},
    broken.LoadedOnce: {"rolled-back"},
    broken.OnePlaceAlone: {"parameter-layout"},
}


# All that run in this process; a compiler takes too long to be asked for every fault.
HERE = [name for name, each in CHECKS.items() if each.where == "one process" and name != "compiled-model"]

FAST = {broken.Sound, broken.StateLostInCopies, broken.OrderCounts}
CASES = [pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow) for kind in BY]


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_a_fault_is_found_by_its_checks_alone(kind):
    report = check(kind, only=HERE)
    assert {outcome.name for outcome in report.of("failed")} == BY[kind], str(report)
