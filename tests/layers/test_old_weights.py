"""Weights of earlier versions go into today's layers."""

import pytest
import torch

import nestlearn as nl
from nestlearn.layers import ContinuumMemory


def test_rates_of_version_0_1_have_no_dimensions_and_are_converted():
    made = ContinuumMemory(2, hidden=1, periods=(4,))
    old = {
        "blocks.0.inner": torch.tensor([[0.5, -1.0]]),
        "blocks.0.outer": torch.tensor([[0.25], [2.0]]),
        "blocks.0.target": torch.tensor([[0.1, 0.2], [0.3, 0.4]]),
        "blocks.0.rate_weight": torch.tensor([0.6, 0.7]),
        "blocks.0.rate_bias": torch.tensor(-1.5),
    }
    assert made.load_state_dict(old) == ([], [])
    assert made.blocks[0].rate_bias.tolist() == [-1.5] and old["blocks.0.rate_bias"].ndim == 0
    assert made.load_state_dict(made.state_dict()) == ([], [])
    with pytest.raises(RuntimeError, match=r"size mismatch for blocks\.0\.rate_bias"):
        made.load_state_dict(old | {"blocks.0.rate_bias": torch.zeros(3)})


@pytest.mark.parametrize("assign", [False, True])
def test_a_model_takes_them_too_wherever_they_stand_in_it(assign, tmp_path):
    from safetensors.torch import load_file, save_file

    made = nl.models.hope_attention(17, 8, 2, 2, periods=(4, 8)).double()
    old = {name: t[0].clone() if name.endswith("rate_bias") else t for name, t in made.state_dict().items()}
    save_file(old, tmp_path / "weights.safetensors")
    again = nl.models.hope_attention(17, 8, 2, 2, periods=(4, 8)).double()
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"), assign=assign)
    torch.testing.assert_close(dict(again.state_dict()), dict(made.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [nl.optim.Adam, nl.optim.Momentum, nl.optim.DeepMomentum])
def test_so_are_the_memories_behind_them(kind):
    """An optimizer's, saved with a model of version 0.1, go on as if they had been saved today."""

    def step(rate: torch.nn.Parameter, optimizer: torch.optim.Optimizer, slope: float) -> None:
        rate.grad = torch.full_like(rate, slope)
        optimizer.step()

    number, (one, two) = torch.nn.Parameter(torch.tensor(0.5)), (torch.nn.Parameter(torch.tensor([0.5])) for _ in "ab")
    old, expected, made = (kind([rate], lr=0.1) for rate in (number, one, two))
    step(number, old, 2.0)
    step(one, expected, 2.0)
    made.load_state_dict(old.state_dict())
    two.data.copy_(one.data)
    step(one, expected, -0.5)
    step(two, made, -0.5)
    torch.testing.assert_close(two.data, one.data, rtol=0, atol=0)


@pytest.mark.parametrize("name", nl.models.MODELS)
def test_no_weight_is_without_dimensions(name):
    """FSDP2 takes none of these."""
    assert [each for each, p in nl.models.MODELS[name](17, 8, 1, 2).named_parameters() if not p.ndim] == []
