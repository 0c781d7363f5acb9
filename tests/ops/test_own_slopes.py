"""Blocks whose slopes are written by hand: equal to the single operations, and right to the second order."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from nestlearn.layers import ContinuumMemory
from nestlearn.layers.projections import shortened, unit
from nestlearn.ops import blocks
from nestlearn.ops.blocks import TokenRows, decays, delta_block
from nestlearn.ops.local_period import local_period
from nestlearn.ops.scan import Read


def number(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def share(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64).requires_grad_()


def slopes(outputs: tuple[Tensor | None, ...], inputs: list[Tensor]) -> list[Tensor]:
    given = [x for x in outputs if x is not None]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, dtype=x.dtype, generator=generator) for x in given]
    return list(torch.autograd.grad(given, inputs, weights))


def right_to_the_second_order(function: Callable[..., Any], inputs: Sequence[Tensor]) -> bool:
    """Slopes, and slopes of slopes; and the former are the same whether the latter are wanted or not."""

    def first(wanted: bool) -> list[Tensor]:
        found = function(*inputs)
        outputs = [x for x in (found if isinstance(found, tuple) else (found,)) if x is not None]
        return list(torch.autograd.grad(sum(x.sin().sum() for x in outputs), inputs, create_graph=wanted))

    torch.testing.assert_close(first(True), first(False), rtol=1e-10, atol=1e-10)
    return gradcheck(function, inputs) and gradgradcheck(function, inputs)


@pytest.mark.parametrize("read", ["before", "after"])
@pytest.mark.parametrize("columns", [slice(None), slice(1, 4)], ids=["all", "some"])
@pytest.mark.parametrize("asked", [True, False], ids=["asked", "silent"])
@pytest.mark.parametrize("tokens", [2, 7])
def test_a_block_of_the_delta_rule(read: Read, columns: slice, asked: bool, tokens: int) -> None:
    torch.manual_seed(0)
    query = number(2, 3, tokens, 4) if asked else None
    key, write, state = number(2, 3, tokens, 4), number(2, 3, tokens, 6), number(2, 3, 4, 6)
    eta, alpha = share(2, 3, tokens), share(2, 3, tokens)
    rows = TokenRows(key, write, query, eta, alpha, forget=1, regress=1, answers=columns)
    inputs = [x for x in (key, write, query, eta, alpha, state) if x is not None]
    ours, plain = delta_block(rows, state, read), blocks._delta_block(rows, state, read)
    torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(slopes(ours, inputs), slopes(plain, inputs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("read", ["before", "after"])
def test_a_block_of_the_delta_rule_to_the_second_order(read: Read) -> None:
    def run(key: Tensor, write: Tensor, query: Tensor, eta: Tensor, alpha: Tensor, state: Tensor) -> object:
        return delta_block(TokenRows(key, write, query, eta, alpha, forget=1), state, read)

    torch.manual_seed(0)
    inputs = (number(1, 3, 2), number(1, 3, 3), number(1, 3, 2), share(1, 3), share(1, 3), number(1, 2, 3))
    assert right_to_the_second_order(run, inputs)


def test_a_token_that_forgets_everything_has_finite_slopes() -> None:
    torch.manual_seed(0)
    alpha = torch.tensor([[0.5, 0.0, 0.5, 1e-40]], dtype=torch.float64).requires_grad_()
    key, write, state = number(1, 4, 2), number(1, 4, 3), number(1, 2, 3)
    rows = TokenRows(key, write, key, share(1, 4), alpha, forget=1)
    inputs = [key, write, alpha, state]
    ours, plain = delta_block(rows, state), blocks._delta_block(rows, state, "after")
    torch.testing.assert_close(slopes(ours, inputs), slopes(plain, inputs), rtol=1e-10, atol=1e-10)


def test_decays_to_the_second_order() -> None:
    torch.manual_seed(0)

    def run(alpha: Tensor) -> tuple[Tensor, Tensor]:
        found = decays(alpha)
        return found.within, found.start

    assert right_to_the_second_order(run, [share(2, 4)])


@pytest.mark.slow
def test_a_period_of_a_continuum_block() -> None:
    torch.manual_seed(0)
    block = ContinuumMemory(5, hidden=6).double().blocks[0]
    inputs = [number(2, 6, 5), number(2, 5, 6), number(2, 5, 5), number(2, 4, 5), share(2, 4)]
    plain = block._period

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        return local_period(*given, plain)

    torch.testing.assert_close(run(*inputs), plain(*inputs), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slopes(run(*inputs), inputs), slopes(plain(*inputs), inputs), rtol=1e-11, atol=1e-11)
    assert right_to_the_second_order(run, inputs)


@pytest.mark.parametrize("function", [unit, shortened])
def test_vectors_shortened(function: object) -> None:
    torch.manual_seed(0)
    assert right_to_the_second_order(function, [number(3, 4)])
    x = number(3, 4)
    length = function(x).norm(dim=-1)  # type: ignore[operator]
    expected = torch.ones(3) if function is unit else x.norm(dim=-1) / (1 + x.square().sum(-1)).sqrt()
    torch.testing.assert_close(length, expected.double(), rtol=0, atol=1e-5)
