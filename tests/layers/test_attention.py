"""Attention: torch's own on a whole sequence, rotations that see distances alone, and a cache with a limit."""

import pytest
import torch
from torch import Tensor

from nestlearn.layers import Attention


def slow_attention(layer: Attention, x: Tensor) -> Tensor:
    """Softmax attention over rotated queries and keys, one query at a time, rotations as complex numbers."""
    batch, time, dim = x.shape
    width = dim // layer.heads
    query, key, value = (part.view(batch, time, layer.heads, width) for part in (x @ layer.qkv.weight.T).chunk(3, -1))
    angle = torch.arange(time)[:, None] * layer.base ** -(torch.arange(width // 2) / (width // 2)).double()
    turn = torch.polar(torch.ones_like(angle), angle)[:, None]

    def rotated(part: Tensor) -> Tensor:
        turned = torch.complex(part[..., : width // 2], part[..., width // 2 :]) * turn
        return torch.cat([turned.real, turned.imag], -1)

    query, key = rotated(query), rotated(key)
    rows = []
    for t in range(time):
        score = torch.einsum("bhd,bshd->bhs", query[:, t], key[:, : t + 1]) / width**0.5
        rows.append(torch.einsum("bhs,bshd->bhd", score.softmax(-1), value[:, : t + 1]))
    return torch.stack(rows, 1).flatten(2) @ layer.out.weight.T


def test_it_is_causal_softmax_attention_with_rotary_positions():
    layer, x = Attention(12, heads=3).double(), torch.randn(2, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(layer(x), slow_attention(layer, x), rtol=1e-12, atol=1e-12)


def test_the_cache_grows_and_has_a_limit():
    layer, x = Attention(8, heads=2, max_tokens=6), torch.randn(2, 4, 8)
    _, state = layer(x, return_state=True)
    assert {name: tuple(t.shape) for name, t in state.items()} == {"key": (2, 2, 4, 4), "value": (2, 2, 4, 4)}
    with pytest.raises(ValueError, match=r"would hold 4 \+ 3 tokens, at most 6 are allowed"):
        layer(x[:, :3], state=state)
    layer(x[:, :2], state=state)
    with pytest.raises(ValueError, match=r"0 \+ 8 tokens"):
        layer(torch.randn(2, 8, 8), return_state=True)
    assert layer(torch.randn(2, 8, 8)).shape == (2, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sixteen_thousand_tokens_stay_finite(dtype):
    """Constant, zero and huge ones among them."""
    layer, x = Attention(8, heads=2).to(dtype), torch.randn(1, 16_384, 8)
    x[:, 4096:8192], x[:, 8192:12288], x[:, 12288:] = 1, 0, 1e12 * x[:, 12288:]
    x = x.to(dtype).requires_grad_()
    y, state = layer(x, return_state=True)
    (y.float() / y.detach().float().abs().max()).sum().backward()
    tensors = (y, x.grad, *state.values(), *(p.grad for p in layer.parameters()))
    assert all(t.isfinite().all() for t in tensors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads: expected a divisor of dim = 8, got 3"),
        ({"heads": 8}, "rotations need an even width of a head, got 8 / 8 = 1"),
        ({"max_tokens": 0}, "max_tokens: expected at least 1, got 0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Attention(8, **options)


def test_positions_turn_as_fast_as_is_usual() -> None:
    torch.manual_seed(0)
    usual = Attention(8, heads=2)
    torch.manual_seed(0)
    said = Attention(8, heads=2, base=10_000.0)
    x = torch.randn(1, 50, 8)
    assert torch.equal(usual(x), said(x))
