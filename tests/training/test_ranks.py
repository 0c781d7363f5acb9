"""What a rank has of a batch, and which processes, strategies and devices do not go together."""

import os
from typing import Any, NamedTuple

import pytest
import torch

import nestlearn as nl
from nestlearn.errors import SettingsError
from nestlearn.training.layouts import gathered, outline
from nestlearn.training.ranks import ALONE, Ranks, joined


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@pytest.mark.parametrize(("size", "count"), [(12, 4), (7, 3), (5, 4), (4, 4), (9, 2)])
def test_shares_put_together_are_the_batch_and_weighted_means_have_its_mean(size: int, count: int) -> None:
    batch = {"pair": Pair(torch.arange(float(size)), torch.randn(size, 3)), "scale": torch.tensor(2.0), "name": "x"}
    shares, weights = zip(*(Ranks("ddp", rank, count).share(batch) for rank in range(count)), strict=True)
    assert torch.equal(torch.cat([share["pair"].x for share in shares]), batch["pair"].x)
    assert torch.equal(torch.cat([share["pair"].y for share in shares]), batch["pair"].y)
    assert all(isinstance(share["pair"], Pair) and share["scale"] == 2.0 and share["name"] == "x" for share in shares)
    means = [weight * share["pair"].x.mean() for share, weight in zip(shares, weights, strict=True)]
    assert sum(means) / count == pytest.approx(float(batch["pair"].x.mean()))


def test_alone_a_batch_is_whole_and_without_tensors_it_is_everyone_s() -> None:
    batch = [torch.zeros(3), torch.zeros(2)]
    assert ALONE.share(batch) == (batch, 1.0)
    assert Ranks("ddp", 1, 4).share(()) == ((), 1.0)


@pytest.mark.parametrize(
    ("batch", "got"), [(torch.zeros(3), "got 3"), ([torch.zeros(8), torch.zeros(5)], "got 5 and 8")]
)
def test_a_batch_that_cannot_be_shared_is_refused(batch: Any, got: str) -> None:
    with pytest.raises(SettingsError, match=f"a batch of at least 4 examples, one for each rank, .*{got}"):
        Ranks("fsdp2", 0, 4).share(batch)


@pytest.mark.parametrize(
    ("strategy", "device", "environment", "message"),
    [
        ("fsdp2", "cpu", {}, r"fsdp2 is for several processes: start them with torchrun .* or .* --strategy none"),
        ("none", "cpu", {"RANK": "0", "WORLD_SIZE": "2"}, r"2 processes .* no strategy .* add --strategy fsdp2"),
        ("hsdp", "cpu", {"RANK": "0", "WORLD_SIZE": "3"}, "number of ranks must be even, got 3"),
        ("ddp", "cuda:1", {"RANK": "0", "WORLD_SIZE": "2"}, "expected the device cuda, .* got cuda:1"),
        ("ddp", "cuda", {"RANK": "0", "WORLD_SIZE": "99", "LOCAL_WORLD_SIZE": "99"}, "99 processes .* CUDA devices"),
    ],
)
def test_processes_and_settings_that_do_not_go_together(monkeypatch, strategy, device, environment, message) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message), joined(strategy, device):
        pass
    assert not torch.distributed.is_initialized()


def test_what_measures_curvature_is_refused_where_parameters_are_sharded() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2, 2))]
    curved = [nl.optim.Adam(parameters), nl.optim.DeepMomentum(parameters, objective="quadratic")]
    for strategy in ("fsdp2", "hsdp"):
        Ranks(strategy, 0, 2).check(curved[:1])
        with pytest.raises(ValueError, match=f"DeepMomentum observes curvature.*{strategy} shards.*the strategy ddp"):
            Ranks(strategy, 0, 2).check(curved)
    Ranks("ddp", 0, 2).check(curved)


def test_without_a_strategy_nothing_is_joined(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("none", "cpu") as ranks:
        assert ranks is ALONE and ranks.first and ranks.alone and not torch.distributed.is_initialized()
        assert ranks.any(True) and not ranks.any(False)
        assert ranks.at_first(lambda: os.getpid()) == os.getpid()


def test_the_command_that_goes_on_starts_as_many(monkeypatch) -> None:
    assert ALONE.command("--resume x") == "nestlearn train --resume x"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert Ranks("ddp", 1, 4).command("--resume x") == "torchrun --nproc-per-node 4 -m nestlearn train --resume x"
    assert Ranks("ddp", 1, 8).command("--resume x") == "torchrun ... -m nestlearn train --resume x"


def test_an_outline_has_shapes_and_plain_values_and_only_one_rank_keeps_tensors() -> None:
    state = {"a": [torch.ones(2, 3), None], "b": {"step": 4}}
    found = outline(state)
    assert (
        found["a"][0].is_meta and found["a"][0].shape == (2, 3) and found["a"][1] is None and found["b"] == {"step": 4}
    )
    assert gathered(state, keep=False) == {"a": [None, None], "b": {"step": 4}}
    assert gathered(state, keep=True)["a"][0] is state["a"][0]
