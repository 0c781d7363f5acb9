"""What is optimised: sets of parameter shapes like those of real models, with gradients that take turns."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.optim.timing import Unit

__all__ = ["WORKLOADS", "Workload", "layers", "plain", "state_bytes", "state_tensors", "weights"]

Build = Callable[[list[Any]], torch.optim.Optimizer]
"""Parameters, or groups of one each, -> optimizer."""


@dataclass(frozen=True)
class Workload:
    """A named set of shapes; with ``groups``, every parameter is a group of its own."""

    name: str
    shapes: Sequence[tuple[int, ...]]
    groups: bool = False

    @property
    def elements(self) -> int:
        return sum(torch.Size(shape).numel() for shape in self.shapes)

    def given(self, parameters: list[nn.Parameter]) -> list[Any]:
        """What an optimizer is given."""
        return [{"params": [parameter]} for parameter in parameters] if self.groups else parameters


def _transformer(dim: int, depth: int, vocabulary: int) -> list[tuple[int, ...]]:
    """Embedding, and per block fused attention projections, an MLP, their biases and two layer norms."""
    block = [(3 * dim, dim), (3 * dim,), (dim, dim), (dim,), (4 * dim, dim), (4 * dim,), (dim, 4 * dim), (dim,)]
    norms = [(dim,)] * 4
    return [(vocabulary, dim), *(block + norms) * depth, (dim,), (dim,)]


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("transformer, 10M", _transformer(320, 6, 8192)),
        Workload("200 small tensors", [(64, 64), (64,), (64,), (32, 64), (32,)] * 40),
        Workload("4 of 1024x1024", [(1024, 1024)] * 4),
        Workload("block of width 1024", [(1024, 1024)] * 4 + [(4096, 1024), (1024, 4096)]),
        Workload("24 of 256x256, 8 of 256x1024", [(256, 256)] * 24 + [(256, 1024), (1024, 256)] * 4),
        Workload("32 layers of 128x128", [(128, 128), (128,)] * 32),
        Workload("8 of 128x128", [(128, 128)] * 8),
        Workload("24 of 32x32", [(32, 32)] * 24),
        Workload("1,000 groups of one 4x4", [(4, 4)] * 1000, groups=True),
    )
}


def plain(workload: Workload, build: Build, device: str, absent: float = 0.0) -> tuple[Unit, torch.optim.Optimizer]:
    """Steps on fresh parameters; two sets of random gradients take turns, and swapping them is not timed.

    At every step another random share ``absent`` of the parameters has no gradient.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(scale: float) -> list[Tensor]:
        return [(scale * torch.randn(shape, generator=generator)).to(device) for shape in workload.shapes]

    chance = random.Random(0)
    parameters = [nn.Parameter(tensor) for tensor in draw(0.02)]
    gradients = [draw(1e-2), draw(1e-2)]
    optimizer = build(workload.given(parameters))

    def prepare() -> None:
        gradients.reverse()
        for parameter, gradient in zip(parameters, gradients[0], strict=True):
            parameter.grad = None if chance.random() < absent else gradient

    return Unit(optimizer.step, prepare), optimizer


def layers(
    workload: Workload, build: Callable[[nn.Module], torch.optim.Optimizer], device: str
) -> tuple[Unit, torch.optim.Optimizer]:
    """Steps on a chain of linear layers of these square shapes, or, with groups, on as many that stand beside each
    other; the forward and backward pass is not timed.
    """
    generator = torch.Generator().manual_seed(0)
    stand = _Beside if workload.groups else nn.Sequential
    model = stand(*(nn.Linear(into, out, bias=False) for out, into in workload.shapes)).to(device)
    batch = torch.randn(128, workload.shapes[0][1], generator=generator).to(device)
    optimizer = build(model)

    def prepare() -> None:
        model.zero_grad()
        model(batch).square().mean().backward()

    return Unit(optimizer.step, prepare), optimizer


class _Beside(nn.Sequential):
    """Layers that have one input, whose outputs are averaged: a long chain would leave no gradient at its start."""

    def forward(self, batch: Tensor) -> Tensor:
        return torch.stack([layer(batch) for layer in self]).mean(0)


def state_tensors(optimizer: Any) -> Iterator[Tensor]:
    """Every distinct tensor in the optimizer's state, those in nested dicts, lists and tuples included."""
    seen: set[int] = set()
    waiting: list[Any] = [optimizer.state]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            if id(value) not in seen:
                seen.add(id(value))
                yield value
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)


def state_bytes(optimizer: Any) -> int:
    """Bytes of all distinct tensors in the optimizer's state."""
    return sum(tensor.numel() * tensor.element_size() for tensor in state_tensors(optimizer))


def weights(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What the optimizer writes, as it is now."""
    return [weight.detach() for group in optimizer.param_groups for weight in group["params"]]
