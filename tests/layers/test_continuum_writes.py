"""The length of a write: it cannot overshoot, whatever a period holds, and it has a slope however long that is (C3)."""

import pytest
import torch
from small_continuum import hidden_units, layer, shortened, text, unit
from torch import Tensor


def share(length: Tensor) -> Tensor:
    """Of what is missed, how much a write of tokens that are alike takes away."""
    return length * shortened(length)


def last_layer(inner_lr: float, keys: Tensor) -> tuple[Tensor, ...]:
    """W_outer before and after one write of a block, hidden units [2, 4, 5] and values of what it was shown, eta."""
    made = layer(periods=(4,), inner_lr=inner_lr)
    block, key = made.blocks[0], unit(keys)
    shown = torch.cat([torch.zeros_like(key[:, :1]), key[:, :-1]], 1)  # the first key that a block is shown is zero
    start = {name: tensor.expand(2, *tensor.shape) for name, tensor in block.start().items()}
    value = block.memory.model.read(start, shown) + key @ block.target.mT
    eta = 2 * inner_lr * torch.sigmoid(key @ block.rate_weight + block.rate_bias)
    after = made(keys, return_state=True)[1]["blocks"]["0"]["model"]["outer"]
    return start["outer"], after, hidden_units(start["inner"], shown), value, eta


@pytest.mark.parametrize("inner_lr", [0.01, 0.3, 1.0, 1e4])
def test_a_write_of_tokens_that_are_alike_takes_away_a_share_below_one(inner_lr):
    before, after, hidden, value, eta = last_layer(inner_lr, text(1).expand(2, 4, 6))
    length = (eta * hidden.square().sum(-1)).sum(-1)
    assert (share(length) < 1).all() and torch.equal(share(length) < length, length > 0.5)
    missed = [(hidden @ outer.mT - value)[:, 1:] for outer in (before, after)]
    torch.testing.assert_close(missed[1], missed[0] * (1 - share(length))[:, None, None], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("inner_lr", [0.01, 1.0, 1e6])
def test_a_write_leaves_between_nothing_and_all_of_what_is_missed_whatever_the_tokens_have_in_common(inner_lr):
    """W - W* is multiplied by I - c sum eta h h^T, whose eigenvalues are above 0 and up to 1."""
    before, after, hidden, value, eta = last_layer(inner_lr, text(4))
    weighted = hidden * eta[..., None]
    factor = shortened((weighted * hidden).sum((1, 2)))[:, None, None]
    kept = torch.eye(5, dtype=torch.float64) - factor * weighted.mT @ hidden
    spectrum = torch.linalg.eigvalsh(kept)
    assert spectrum.min() > 0 and spectrum.max() < 1 + 1e-12
    # The values of these tokens can be told exactly, by some W*: four tokens, five hidden units.
    exact = before + (torch.linalg.pinv(hidden[:, 1:]) @ (value - hidden @ before.mT)[:, 1:]).mT
    torch.testing.assert_close(after - exact, (before - exact) @ kept, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("period", [2, 64, 1024])
def test_a_rate_has_a_slope_however_long_the_period(period):
    made, x = layer(periods=(period,)), text(1, batch=1).expand(1, period + 1, 6)
    block = made.blocks[0]
    torch.nn.init.zeros_(block.rate_weight)
    outer = made(x, return_state=True)[1]["blocks"]["0"]["model"]["outer"]
    step = (outer - block.start()["outer"]).abs().sum()
    (slope,) = torch.autograd.grad(step, block.rate_bias)
    hidden = hidden_units(block.start()["inner"], unit(x))[0, 0]
    length = (0.3 * (period - 1) * hidden.square().sum()).detach()
    assert (period > 2) == (length > 0.5)
    # The logarithm of eta has the slope 1/2 in the bias at zero, the share s or 1 / (4 s) in that logarithm.
    expected = 0.5 * step.detach() * torch.minimum(length, 0.25 / length) / share(length)
    torch.testing.assert_close(slope, expected[None], rtol=1e-8, atol=0)


def test_the_share_has_no_kink():
    length = torch.tensor([0.5 - 1e-9, 0.5 + 1e-9], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(share(length).sum(), length)
    torch.testing.assert_close(slope, torch.ones(2, dtype=torch.float64), rtol=1e-7, atol=0)
