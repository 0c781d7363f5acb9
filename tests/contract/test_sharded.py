"""Sharded parameters: every optimizer under FSDP2, HSDP, tensor parallelism and FSDP2 with it equals one process, and
checkpoints go from any number of ranks to any other.

One, two, three and four processes run all scenarios once, forked from one that has loaded torch, and report what became
of each.
"""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from forked import run_alone

import nestlearn as nl
from nestlearn.training.inspect_ranks import loads, works

from .shards import HALF, LAYOUTS, MEASURING, OBSERVING, SAVED, SHARING, members, stack

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[Any, Any]]]:
    """What every rank reports, by the number of ranks; two write the checkpoints that all others read."""
    folder = tmp_path_factory.mktemp("shards")
    run_alone("contract.shards", folder, limit=500)
    return {
        number: [pickle.loads((folder / f"{number}ranks{rank}").read_bytes()) for rank in range(number)]
        for number in (1, 2, 3, 4)
    }


@pytest.mark.parametrize(
    ("ranks", "layout", "name"),
    [(ranks, layout, name) for ranks, layouts in LAYOUTS.items() for layout in layouts for name in members(layout)],
)
def test_it_equals_one_process_on_the_whole_batch(ranks: int, layout: str, name: str, outcomes: dict[int, Any]) -> None:
    for found in outcomes[ranks]:
        if name in OBSERVING and "tp" in layout:
            assert "works on shards of what it sees" in found[layout, name]
        else:
            assert found[layout, name] < 1e-9


@pytest.mark.parametrize("name", SAVED)
def test_a_run_is_resumed_by_any_number_of_ranks(name: str, outcomes: dict[int, Any]) -> None:
    for same_to_the_bit, same_names in (found["resumed", name] for found in outcomes[2]):
        assert same_to_the_bit and same_names
    for ranks in (1, 3, 4):
        assert all(found["resumed", name] < 1e-9 for found in outcomes[ranks])


@pytest.mark.parametrize("name", SAVED)
def test_a_checkpoint_of_one_process_goes_on_in_shards(name: str, outcomes: dict[int, Any]) -> None:
    assert all(found["from one process", name] < 1e-9 for found in outcomes[2])


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize(("ranks", "most"), [(2, 0.55), (4, 0.3)])
def test_ranks_share_the_work_of_matrices_out(ranks: int, most: float, name: str, outcomes: dict[int, Any]) -> None:
    """Nobody does much more than a share, and all of them together send less than the weights twice."""
    shares, sent = zip(*(found["work", name] for found in outcomes[ranks]), strict=True)
    assert max(shares) <= most and sum(shares) == pytest.approx(1)
    assert set(sent) == {sent[0]} and sent[0] <= 2
    with torch.device("meta"):
        model = stack()
    optimizer = getattr(nl.optim, name)(model.parameters(), lr=0.02, nonfinite="ignore")

    def differentiate() -> None:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    known = loads(works([optimizer], differentiate, 5), ranks)
    flops = [load.flops for load in known]
    assert [each / sum(flops) for each in flops] == pytest.approx(list(shares))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert sum(load.sent_bytes for load in known) == pytest.approx(sent[0] * weights)


@pytest.mark.parametrize("name", HALF)
def test_bfloat16_parameters_differ_by_their_rounding_alone(name: str, outcomes: dict[int, Any]) -> None:
    """The mean of two gradients is rounded where one process rounds a sum."""
    assert all(found["bfloat16", name] < 0.3 for found in outcomes[2])


@pytest.mark.parametrize("name", MEASURING)
def test_curvature_is_refused_on_shards_before_anything_is_written(name: str, outcomes: dict[int, Any]) -> None:
    for found in outcomes[2]:
        assert "observes curvature, which needs whole parameters" in found["measured", name]
        assert "Use DistributedDataParallel" in found["measured", name]


def test_a_gradient_that_is_infinite_on_one_rank_stops_all_of_them(outcomes: dict[int, Any]) -> None:
    assert [found["poisoned"] for found in outcomes[2]] == ["nothing was written"] * 2


def test_owners_stay_when_a_load_fails_after_groups_were_added(outcomes: dict[int, Any]) -> None:
    for found in outcomes[2]:
        assert found["grown"] < 1e-9
