"""The length of a write: it cannot overshoot, whatever a period holds, and it has a slope however long that is (C3)."""

import pytest
import torch
from small_continuum import hidden_units, layer, text, unit
from torch import Tensor


def last_layer(inner_lr: float, keys: Tensor) -> tuple[Tensor, ...]:
    """W_outer before and after one write of a block, the hidden units [2, 4, 5] and values of what it was shown, eta.

    The layer is made to see the keys as they are; the first key that a block is shown is zero.
    """
    made = layer(periods=(4,), inner_lr=inner_lr)
    block, key = made.blocks[0], unit(keys)
    shown = torch.cat([torch.zeros_like(key[:, :1]), key[:, :-1]], 1)
    start = {name: tensor.expand(2, *tensor.shape) for name, tensor in block.start().items()}
    value = block.memory.model.read(start, shown) + key @ block.target.mT
    eta = 2 * inner_lr * torch.sigmoid(key @ block.rate_weight + block.rate_bias)
    after = made(keys, return_state=True)[1]["blocks"]["0"]["model"]["outer"]
    return start["outer"], after, hidden_units(start["inner"], shown), value, eta


@pytest.mark.parametrize("inner_lr", [0.01, 1.0, 100.0])
def test_a_write_of_tokens_that_are_alike_is_taken_at_what_it_writes(inner_lr):
    """The implicit step, W' = W - sum eta (W' h / sqrt(n) - v) h^T / sqrt(n): it cannot overshoot, however long."""
    before, after, hidden, value, eta = last_layer(inner_lr, text(1).expand(2, 4, 6))
    missed = hidden[:, 1:] @ after.mT - value[:, 1:]
    torch.testing.assert_close(
        after, before - (eta[:, 1:, None] * missed).mT @ hidden[:, 1:], rtol=1e-9, atol=1e-10 * inner_lr
    )


@pytest.mark.parametrize("inner_lr", [0.01, 1.0, 1e6])
def test_a_write_leaves_between_nothing_and_all_of_what_is_missed_whatever_the_tokens_have_in_common(inner_lr):
    """W - W* is multiplied by I - sum eta h h^T / (1 + sum eta ||h||^2), whose eigenvalues are from 0 to 1."""
    before, after, hidden, value, eta = last_layer(inner_lr, text(4))
    weighted = hidden * eta[..., None]
    kept = (
        torch.eye(5, dtype=torch.float64) - weighted.mT @ hidden / (1 + (weighted * hidden).sum((1, 2)))[:, None, None]
    )
    spectrum = torch.linalg.eigvalsh(kept)
    assert spectrum.min() > 0 and spectrum.max() < 1 + 1e-12
    # The values of these tokens can be told exactly, by some W*: four tokens, five hidden units.
    exact = before + (torch.linalg.pinv(hidden[:, 1:]) @ (value - hidden @ before.mT)[:, 1:]).mT
    torch.testing.assert_close(after - exact, (before - exact) @ kept, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("period", [4, 64, 1024])
def test_a_rate_has_a_slope_however_long_the_period(period):
    """c = 1 / (1 + s) leaves s / (1 + s) of a step, whose slope in the logarithm of the rate is s / (1 + s)^2."""
    made, x = layer(periods=(period,)), text(1, batch=1).expand(1, period + 1, 6)
    block = made.blocks[0]
    torch.nn.init.zeros_(block.rate_weight)
    outer = made(x, return_state=True)[1]["blocks"]["0"]["model"]["outer"]
    step = (outer - block.start()["outer"]).abs().sum()
    (slope,) = torch.autograd.grad(step, block.rate_bias)
    hidden = hidden_units(block.start()["inner"], unit(x))[0, 0]
    met = 0.3 * (period - 1) * hidden.square().sum()
    # The logarithm of sigmoid has the slope 1/2 at zero.
    torch.testing.assert_close(slope, (0.5 * step / (1 + met)).detach()[None], rtol=1e-8, atol=0)
