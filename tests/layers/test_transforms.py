"""Every layer under torch.func and under activation checkpointing: what they give is what loops and autograd give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from every_layer import EVERY, make
from torch import Tensor
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

DIM, TIME, CHUNK = 8, 7, 3

# Of torch's own operations: what they give is right.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")

every_layer = pytest.mark.parametrize("name", EVERY)


def layer_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return make(name, DIM, chunk=CHUNK)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def slopes_of(layer: torch.nn.Module, x: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()), materialize_grads=True)
    return dict(zip(dict(layer.named_parameters()), found, strict=True))


@every_layer
def test_a_batch_by_vmap_is_a_loop(name: str) -> None:
    layer, x = layer_of(name), draw(3, 2, TIME, DIM)
    close(vmap(layer)(x), torch.stack([layer(each) for each in x]))


@every_layer
def test_an_ensemble_is_a_loop_over_its_members(name: str) -> None:
    members, x = [layer_of(name), layer_of(name)], draw(2, TIME, DIM)
    with torch.no_grad():
        for parameter in members[1].parameters():
            parameter.mul_(1.1)
    parameters, buffers = stack_module_state(members)
    found = vmap(lambda p, b: functional_call(members[0], (p, b), (x,)))(parameters, buffers)
    close(found, torch.stack([member(x) for member in members]))


@every_layer
def test_slopes_of_every_example_are_those_of_a_loop(name: str) -> None:
    layer, x = layer_of(name), draw(2, TIME, DIM)
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(layer, parameters, (one.unsqueeze(0),)).square().sum()

    found = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for index in range(len(x)):
        close({key: each[index] for key, each in found.items()}, slopes_of(layer, x[index : index + 1]))


@every_layer
def test_forward_differences_are_the_slopes_the_other_way_round(name: str) -> None:
    """<w, J v> = <J^T w, v>; attention's kernel has no forward differences, so it takes the plain form of torch."""
    layer, x, along, out = layer_of(name), draw(2, TIME, DIM), draw(2, TIME, DIM, seed=2), draw(2, TIME, DIM, seed=3)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        _, found = jvp(layer, (x,), (along,))
    x.requires_grad_()
    (back,) = torch.autograd.grad(layer(x), x, out)
    close((found * out).sum(), (back * along).sum())


@every_layer
def test_checkpointed_slopes_are_the_same(name: str) -> None:
    """From a state to a state, as within a longer text."""
    layer = layer_of(name)

    def run(call: Callable[..., Any]) -> list[Tensor]:
        x = draw(2, TIME, DIM, seed=2).requires_grad_()
        _, state = layer(draw(2, 4, DIM), return_state=True)
        y, after = call(x, state)
        last, _ = layer(draw(2, 1, DIM, seed=3), after, return_state=True)
        return accumulated(layer, y.square().sum() + last.sum(), x)

    def plain(x: Tensor, state: Any) -> Any:
        return layer(x, state, return_state=True)

    close(run(lambda x, state: checkpoint(plain, x, state, use_reentrant=False)), run(plain))


@every_layer
def test_slopes_of_the_reentrant_kind_are_the_same(name: str) -> None:
    """Which knows tensors alone, no states: torch gives these no slopes there."""
    layer = layer_of(name)

    def run(call: Callable[..., Any]) -> list[Tensor]:
        x = draw(2, TIME, DIM, seed=2).requires_grad_()
        return accumulated(layer, call(x).square().sum(), x)

    close(run(lambda x: checkpoint(layer, x, use_reentrant=True)), run(layer))


def accumulated(layer: torch.nn.Module, loss: Tensor, x: Tensor) -> list[Tensor]:
    layer.zero_grad()
    loss.backward()
    return [tensor.grad for tensor in (x, *layer.parameters()) if tensor.grad is not None]
