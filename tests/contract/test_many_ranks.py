"""More than one rank: replicas stay equal, whatever a rule looks at, and what cannot be served is refused in words.

Two processes run all scenarios once, forked from one that has loaded torch, and report what became of each.
"""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from forked import run_alone

from .ranks import CLASSES, CONTROLS, ELEMENTWISE, TARGETS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """What the two ranks report of each scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    run_alone("contract.ranks", folder, limit=240)
    first, second = (pickle.loads((folder / f"{rank}").read_bytes()) for rank in (0, 1))
    return {name: (first[name], second[name]) for name in first}


@pytest.mark.parametrize("name", [*CLASSES, *TARGETS, *map(str, CONTROLS)])
def test_replicas_are_equal_and_one_process_on_the_whole_batch(name: str, outcomes: dict[Any, Any]) -> None:
    """What a rule observes is put together over the ranks, as gradients are."""
    for apart, from_one_process in outcomes[name]:
        assert apart == 0.0
        assert from_one_process < 1e-9


def test_parameters_that_are_shared_out_are_refused_where_ranks_observe(outcomes: dict[Any, Any]) -> None:
    assert outcomes["shared out, Muon"] == ("trains", "trains")
    for outcome in outcomes["shared out, LayerMomentum"]:
        assert "the 2 ranks do not hold the same parameters" in outcome


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
