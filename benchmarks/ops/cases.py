"""What is run: forward and backward over B sequences of T tokens, H heads of width d, gradients of all inputs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, scaled_dot_product_attention

from benchmarks.optim.timing import Unit
from nestlearn.memory import (
    MLP,
    AssociativeMemory,
    DeltaGradientDescent,
    GradientDescent,
    InnerMomentum,
    Matrix,
    dot_product,
    l2,
)
from nestlearn.ops import parallel_scan

__all__ = ["CASES", "Case", "Shape", "attention", "inputs", "named", "ours"]

CHUNK = 64


@dataclass(frozen=True)
class Shape:
    """Of keys, values and queries [batch, heads, time, width]."""

    time: int
    batch: int = 4
    heads: int = 4
    width: int = 32

    def __str__(self) -> str:
        return f"B={self.batch} H={self.heads} T={self.time} d={self.width}"


@dataclass(frozen=True)
class Case:
    """A memory under a name; ``chunk`` is where its gradients are taken (S6)."""

    name: str
    memory: Callable[[int], AssociativeMemory]
    chunk: int = 1


CASES = (
    Case("linear", lambda d: AssociativeMemory(Matrix(d, d), dot_product, GradientDescent())),
    Case("gated delta", lambda d: AssociativeMemory(Matrix(d, d), l2, GradientDescent())),
    Case("matrix DGD l2, chunk 64", lambda d: AssociativeMemory(Matrix(d, d), l2, DeltaGradientDescent()), CHUNK),
    Case(
        "the same with momentum",
        lambda d: AssociativeMemory(Matrix(d, d), l2, InnerMomentum(rule=DeltaGradientDescent())),
        CHUNK,
    ),
    Case("MLP DGD l2, chunk 64", lambda d: AssociativeMemory(MLP(d, d, d), l2, DeltaGradientDescent()), CHUNK),
)


def inputs(shape: Shape, device: str) -> dict[str, Tensor]:
    """Unit keys and queries, eta in (0, 1/64), which is stable in chunks of 64, and alpha in (0.9, 1)."""
    generator = torch.Generator().manual_seed(0)
    lead = (shape.batch, shape.heads, shape.time)

    def draw(*dims: int) -> Tensor:
        return torch.randn(*lead, *dims, generator=generator)

    tensors = {
        "key": normalize(draw(shape.width), dim=-1),
        "value": draw(shape.width),
        "query": normalize(draw(shape.width), dim=-1),
        "eta": draw().sigmoid() / CHUNK,
        "alpha": 0.9 + 0.1 * draw().sigmoid(),
    }
    return {name: tensor.to(device).requires_grad_() for name, tensor in tensors.items()}


def ours(case: Case, shape: Shape, device: str) -> Unit:
    """The scan from a learned start, forward and backward."""
    given, memory = inputs(shape, device), case.memory(shape.width)
    generator = torch.Generator(device).manual_seed(0)
    model = memory.init((shape.heads,), generator=generator, device=device)["model"]
    start = {name: tensor.requires_grad_() for name, tensor in model.items()}

    def run() -> None:
        y, _ = parallel_scan(memory, **given, state={"model": start}, chunk=case.chunk)
        y.square().mean().backward()

    return Unit(run, lambda: _forget([*given.values(), *start.values()]))


def named(name: str, shape: Shape, device: str) -> Unit:
    """`ours` of the case with that name, which is what another process can be sent."""
    (case,) = [case for case in CASES if case.name == name]
    return ours(case, shape, device)


def attention(shape: Shape, device: str) -> Unit:
    """Causal softmax attention of torch, forward and backward."""
    given = inputs(shape, device)

    def run() -> None:
        y = scaled_dot_product_attention(given["query"], given["key"], given["value"], is_causal=True)
        y.square().mean().backward()

    return Unit(run, lambda: _forget(list(given.values())))


def _forget(tensors: list[Tensor]) -> None:
    for tensor in tensors:
        tensor.grad = None
