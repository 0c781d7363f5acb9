"""What a sequence layer does under torch.func and under activation checkpointing: what loops and autograd give.

Each member of `CONTRACT` is handed a layer in float64, with [batch, time, dim] of its own width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from nestlearn.layers import SequenceLayer
from nestlearn.memory.state import mapped

__all__ = ["CONTRACT", "close", "draw", "other"]

TIME = 7


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def other(make: Callable[[], Any]) -> Any:
    """A module of the same kind with other weights."""
    module = make()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.1)
    return module


def slopes_of(layer: SequenceLayer, x: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()), materialize_grads=True)
    return dict(zip(dict(layer.named_parameters()), found, strict=True))


def loss_in(layer: SequenceLayer) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    return lambda parameters, x: functional_call(layer, parameters, (x,)).square().sum()


def numbers(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def batches(make: Callable[[], SequenceLayer]) -> None:
    """From a state to a state, whose time is one number for all."""
    layer, x = make(), draw(3, 2, TIME, make().dim)
    close(vmap(layer)(x), torch.stack([layer(each) for each in x]))

    starts = [layer(draw(2, 4, layer.dim, seed=seed), return_state=True)[1] for seed in range(3)]
    state = mapped(lambda *parts: torch.stack(parts) if parts[0].ndim else parts[0], *starts)
    places = mapped(lambda part: 0 if part.ndim else None, starts[0])
    run = vmap(lambda x, state: layer(x, state, return_state=True), in_dims=(0, places), out_dims=(0, places))
    y, after = run(x, state)
    for index, start in enumerate(starts):
        found = mapped(lambda part, index=index: part[index] if part.ndim else part, after)
        close((y[index], found), layer(x[index], start, return_state=True))


def ensembles(make: Callable[[], SequenceLayer]) -> None:
    members, x = [make(), other(make)], draw(2, TIME, make().dim)
    parameters, buffers = stack_module_state(members)
    found = vmap(lambda p, b: functional_call(members[0], (p, b), (x,)))(parameters, buffers)
    close(found, torch.stack([member(x) for member in members]))


def slopes(make: Callable[[], SequenceLayer]) -> None:
    """Of all weights, of every example apart, and with a graph of autograd below."""
    layer, x = make(), draw(2, TIME, make().dim)
    close(grad(loss_in(layer))(numbers(layer), x), slopes_of(layer, x))
    found = vmap(grad(loss_in(layer)), in_dims=(None, 0))(numbers(layer), x.unsqueeze(1))
    for index in range(len(x)):
        close({key: each[index] for key, each in found.items()}, slopes_of(layer, x[index : index + 1]))

    def sharpness(of: Callable[[Tensor], Tensor]) -> Tensor:
        given = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(of(given).square().sum(), given)
        return found

    def by_autograd(x: Tensor) -> Tensor:
        return torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)[0]

    close(sharpness(grad(lambda x: layer(x).square().sum())), sharpness(by_autograd))


def forward_differences(make: Callable[[], SequenceLayer]) -> None:
    """<w, J v> = <J^T w, v>, for the input and for all weights."""
    layer = make()
    x, along, out = (draw(2, TIME, layer.dim, seed=seed) for seed in range(3))
    slope = torch.autograd.grad(layer(x.requires_grad_()), x, out)[0]
    x = x.detach()
    _, found = jvp(layer, (x,), (along,))
    close((found * out).sum(), (slope * along).sum())
    with forward_ad.dual_level():  # torch's dual numbers without torch.func
        tangent = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, along))).tangent
    close(tangent, found)
    parameters = numbers(layer)
    ways = {name: draw(*parameter.shape, seed=3) for name, parameter in parameters.items()}
    _, found = jvp(lambda parameters: loss_in(layer)(parameters, x), (parameters,), (ways,))
    close(found, sum((slope * ways[name]).sum() for name, slope in slopes_of(layer, x).items()))


def checkpoints(make: Callable[[], SequenceLayer]) -> None:
    """From a state to a state, as within a longer text. The reentrant kind sees the tensors that it is handed."""
    layer = make()

    def run(call: Callable[..., Any]) -> list[Tensor]:
        x = draw(2, TIME, layer.dim, seed=2).requires_grad_()
        _, state = layer(draw(2, 4, layer.dim), return_state=True)
        y, after = call(x, state)
        last, _ = layer(draw(2, 1, layer.dim, seed=3), after, return_state=True)
        return accumulated(layer, y.square().sum() + last.sum(), x)

    def plain(x: Tensor, state: Any) -> Any:
        return layer(x, state, return_state=True)

    def reentrant(x: Tensor, state: Any) -> Any:
        form: list[Any] = []

        def flat(x: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
            y, after = plain(x, tree_unflatten(list(parts), tree_flatten(state)[1]))
            parts_after, shape = tree_flatten(after)
            form.append(shape)
            return y, *parts_after

        y, *after = checkpoint(flat, x, *tree_flatten(state)[0], use_reentrant=True)
        return y, tree_unflatten(list(after), form[0])

    expected = run(plain)
    close(run(lambda x, state: checkpoint(plain, x, state, use_reentrant=False)), expected)
    close(run(reentrant), expected)


def accumulated(layer: SequenceLayer, loss: Tensor, x: Tensor) -> list[Tensor]:
    layer.zero_grad()
    loss.backward()
    return [tensor.grad for tensor in (x, *layer.parameters()) if tensor.grad is not None]


CONTRACT = {check.__name__: check for check in (batches, ensembles, slopes, forward_differences, checkpoints)}
