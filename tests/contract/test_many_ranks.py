"""More than one rank: what reads gradients alone keeps replicas equal, everything else is refused in words.

Two processes run all scenarios once (starting them is what costs) and report what became of each.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .members import Member
from .ranks import CLASSES, ELEMENTWISE, TARGETS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """What the two ranks report of each scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    meeting, results = folder / "meeting", [folder / f"{rank}" for rank in (0, 1)]
    tests = Path(__file__).parents[1]
    ranks = [
        subprocess.Popen([sys.executable, "-m", "contract.ranks", str(rank), str(meeting), str(result)], cwd=tests)
        for rank, result in enumerate(results)
    ]
    try:
        assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    first, second = (pickle.loads(result.read_bytes()) for result in results)
    return {name: (first[name], second[name]) for name in first}


def observes(member: Member) -> bool:
    return member.model or member.closure


@pytest.mark.parametrize("name", [name for name, member in CLASSES.items() if not observes(member)])
def test_replicas_stay_equal(name: str, outcomes: dict[Any, Any]) -> None:
    assert outcomes[name] == (0.0, 0.0)


@pytest.mark.parametrize("name", [name for name, member in (CLASSES | TARGETS).items() if observes(member)])
def test_what_would_drift_apart_is_refused(name: str, outcomes: dict[Any, Any]) -> None:
    what = "layers" if (CLASSES | TARGETS)[name].model else "curvature"
    for outcome in outcomes[name]:
        assert f"observes {what}, which every one of the 2 ranks" in str(outcome)


def test_a_control_observes_nothing_and_runs(outcomes: dict[Any, Any]) -> None:
    assert outcomes["LayerMomentum-memory=False-model"] == (0.0, 0.0)


@pytest.mark.parametrize("orig", [True, False])
@pytest.mark.parametrize("name", sorted({member.name for member in CLASSES.values() if not member.model}))
def test_a_matrix_rule_is_never_silently_the_elementwise_one(name: str, orig: bool, outcomes: dict[Any, Any]) -> None:
    if name in ELEMENTWISE:
        assert outcomes[name, orig] == ("trains", "trains")
        return
    for outcome in outcomes[name, orig]:
        assert "flat shard of FullyShardedDataParallel" in outcome
        assert "NO_SHARD with use_orig_params=True" in outcome


def test_flat_shards_are_refused_when_the_model_is_wrapped_late_and_allowed_when_chosen(
    outcomes: dict[Any, Any],
) -> None:
    assert all("flat shard" in outcome for outcome in outcomes["late"])
    assert outcomes["whole"] == outcomes["chosen"] == ("trains", "trains")
