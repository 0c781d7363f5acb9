"""SwiGLU: its formula, and a size at which it has as many numbers as a plain MLP."""

import pytest
import torch

from nestlearn.models.feed_forward import SwiGLU


def test_it_is_its_formula_token_by_token():
    layer, x = SwiGLU(6, hidden=5).double(), torch.randn(2, 7, 6, dtype=torch.float64)
    gate = x @ layer.gate.weight.T
    expected = (gate / (1 + (-gate).exp()) * (x @ layer.up.weight.T)) @ layer.down.weight.T
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    assert layer.initial_state(2) == layer(x, return_state=True)[1] == {}


def test_it_has_as_many_numbers_as_a_plain_mlp_of_four_times_the_width():
    assert sum(p.numel() for p in SwiGLU(96).parameters()) == 2 * 96 * 4 * 96
    assert SwiGLU(16).up.out_features == 48  # rounded up to a multiple of 8


def test_errors():
    with pytest.raises(ValueError, match="hidden: expected at least 1 unit, got 0"):
        SwiGLU(8, hidden=0)
