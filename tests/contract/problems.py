"""Small problems and comparisons the contract runs every member on.

A problem is a module and a list of losses, each a callable without arguments. `advance` takes one step a loss.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .members import Member

__all__ = [
    "Bag",
    "advance",
    "assert_close",
    "assert_equal",
    "batch",
    "flat_state",
    "network",
    "quadratic",
    "regression",
    "snapshot",
    "tensors_of",
]

Loss = Callable[[], Tensor]


def network(dtype: torch.dtype = torch.float64, widths: Sequence[int] = (6, 8, 3), seed: int = 0) -> nn.Sequential:
    """A tanh network with `len(widths) - 1` linear layers; the same weights for the same seed."""
    return copy.deepcopy(_drawn(dtype, tuple(widths), seed))


@cache
def _drawn(dtype: torch.dtype, widths: tuple[int, ...], seed: int) -> nn.Sequential:
    """A network to be copied: a copy takes a third of the time, and the suite needs thousands."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out, dtype=torch.float64)
        for parameter in layer.parameters():
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.copy_(draw / fan_in**0.5)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def batch(index: int, module: nn.Module, rows: int = 16) -> tuple[Tensor, Tensor]:
    """Batch `index`: inputs [rows, in] and targets [rows, out] that fit the first and the last layer of `module`."""
    first, last = module[0], module[-1]
    generator = torch.Generator().manual_seed(1000 + index)
    inputs = torch.randn(rows, first.in_features, generator=generator, dtype=torch.float64)
    targets = torch.randn(rows, last.out_features, generator=generator, dtype=torch.float64)
    return inputs.to(first.weight), targets.to(first.weight)


def regression(module: nn.Module, indices: Iterable[int], factor: float = 1.0) -> list[Loss]:
    """One loss a batch: `factor` times the mean squared error."""

    def loss(index: int) -> Tensor:
        inputs, targets = batch(index, module)
        return factor * (module(inputs) - targets).square().mean()

    return [lambda index=index: loss(index) for index in indices]


class Bag(nn.Module):
    """Free parameters of any shape: `p0`, `p1`, ... They are the weights of no layer."""

    def __init__(self, values: Iterable[Tensor]) -> None:
        super().__init__()
        for index, value in enumerate(values):
            self.register_parameter(f"p{index}", nn.Parameter(value))


def quadratic(module: nn.Module, steps: int, targets: Sequence[Tensor] | None = None) -> list[Loss]:
    """`steps` times the loss 1/2 sum ||p - target||^2, whose gradient is p - target (targets: zeros by default)."""

    def loss() -> Tensor:
        goals = targets if targets is not None else [torch.zeros_like(p) for p in module.parameters()]
        gaps = [(p - goal) for p, goal in zip(module.parameters(), goals, strict=True)]
        return sum((0.5 * (gap * gap.conj()).real.sum() for gap in gaps), start=torch.zeros(()))

    return [loss] * steps


def advance(member: Member, optimizer: torch.optim.Optimizer, losses: Iterable[Loss]) -> list[float]:
    """One step a loss, with a closure that keeps the graph where the member needs one. Returns the losses."""
    values: list[float] = []
    for loss in losses:

        def closure(loss: Loss = loss) -> Tensor:
            optimizer.zero_grad()
            value = loss()
            value.backward(retain_graph=member.closure)
            values.append(value.item())
            return value

        if member.closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    return values


def tensors_of(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a nested dict with dotted names; what is no dict is a leaf."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from tensors_of(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def flat_state(optimizer: torch.optim.Optimizer) -> list[dict[str, Tensor]]:
    """The state of every parameter, in the order of the groups, as a flat dict of dotted names."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [dict(tensors_of(dict(optimizer.state.get(p, {})))) for p in parameters]


def snapshot(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies of all parameters and of all state, by name, in the order of the groups."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    copies = {f"{i}": p.detach().clone() for i, p in enumerate(parameters)}
    for index, state in enumerate(flat_state(optimizer)):
        copies |= {f"{index}.{key}": value.detach().clone() for key, value in state.items()}
    return copies


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Same names, dtypes and bits."""
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        if _same(actual[key], value):
            continue
        torch.testing.assert_close(actual[key], value, rtol=0, atol=0, equal_nan=True, msg=lambda m, k=key: f"{k}: {m}")


def _same(one: Any, two: Any) -> bool:
    """Whether these are equal tensors, without NaN; `torch.testing` takes as long as a step to find that out."""
    if not (isinstance(one, Tensor) and isinstance(two, Tensor)):
        return False
    alike = (one.dtype, one.device, one.layout, one.shape) == (two.dtype, two.device, two.layout, two.shape)
    return alike and torch.equal(one, two)


def assert_close(actual: nn.Module, expected: nn.Module, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    """Parameters of two modules agree, pair by pair."""
    for (name, one), two in zip(actual.named_parameters(), expected.parameters(), strict=True):
        if one.dtype == two.dtype and one.shape == two.shape and torch.allclose(one, two, rtol=rtol, atol=atol):
            continue
        torch.testing.assert_close(
            one.detach().contiguous(),
            two.detach().contiguous(),
            rtol=rtol,
            atol=atol,
            msg=lambda m, n=name: f"{n}: {m}",
        )
