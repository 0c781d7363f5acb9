"""What the tests of sequence memories share: tokens, memories, and two scans compared in everything they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nestlearn.memory import (
    MLP,
    AssociativeMemory,
    DeltaGradientDescent,
    GradientDescent,
    InnerMomentum,
    Matrix,
    Objective,
    Rule,
)

__all__ = ["RULES", "assert_same", "everything", "gated_delta_rule", "leaves", "matrix", "mlp", "shaped", "tokens"]

RULES: dict[str, Rule] = {
    "descent": GradientDescent(),
    "delta": DeltaGradientDescent(),
    "implicit": DeltaGradientDescent(implicit=True),
    "momentum": InnerMomentum(rule=GradientDescent()),
    "delta, momentum": InnerMomentum(rule=DeltaGradientDescent()),
}


def matrix(objective: Objective, rule: str = "descent", residual: bool = False) -> AssociativeMemory:
    """Keys of 4 numbers, values of 3, or of 4 with a residual read-out."""
    return AssociativeMemory(Matrix(4, 4 if residual else 3, residual=residual), objective, RULES[rule])


def mlp(objective: Objective, rule: str = "descent", residual: bool = True, activation: str = "silu") -> Any:
    out = 4 if residual else 3
    return AssociativeMemory(MLP(4, 5, out, residual=residual, activation=activation), objective, RULES[rule])


def tokens(
    memory: AssociativeMemory,
    time: int,
    batch: tuple[int, ...] = (2, 2),
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Arguments of a scan: unit keys and queries, eta in (0, 1/2), alpha in (1/2, 1), theta in (0, 1), any start."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    model = memory.model
    start = {name: draw(*batch, *t.shape) for name, t in model.init().items()}
    arguments: dict[str, Any] = {
        "key": normalize(draw(*batch, time, model.in_dim), dim=-1),
        "value": draw(*batch, time, model.out_dim),
        "query": normalize(draw(*batch, time, model.in_dim), dim=-1),
        "eta": 0.5 * draw(*batch, time).sigmoid(),
        "alpha": 0.5 + 0.5 * draw(*batch, time).sigmoid(),
        "state": {"model": start},
    }
    if isinstance(memory.rule, InnerMomentum):
        arguments["momentum"] = draw(*batch, time).sigmoid()
    return shaped(lambda t: t.to(device, dtype), arguments)


def shaped(change: Callable[[Tensor], Tensor], arguments: Any) -> Any:
    """The same nested dictionary with every floating-point tensor changed."""
    if isinstance(arguments, dict):
        return {name: shaped(change, value) for name, value in arguments.items()}
    return change(arguments) if isinstance(arguments, Tensor) and arguments.is_floating_point() else arguments


def leaves(nested: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All floating-point tensors of a nested dictionary, with dotted names."""
    if isinstance(nested, dict):
        for key, value in nested.items():
            yield from leaves(value, f"{name}.{key}" if name else key)
    elif isinstance(nested, Tensor) and nested.is_floating_point():
        yield name, nested


def everything(
    scan: Callable[..., tuple[Tensor, Any]], memory: AssociativeMemory, arguments: dict[str, Any], **options: Any
) -> dict[str, Tensor]:
    """Answers, every tensor of the final state, and the gradient of a weighted sum of all these for every input."""
    arguments = shaped(lambda t: t.detach().requires_grad_(), arguments)
    y, state = scan(memory, **arguments, **options)
    found = {"y": y, **dict(leaves(state, "state"))}
    generator = torch.Generator().manual_seed(1)
    loss = sum((t * torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t)).sum() for t in found.values())
    inputs = dict(leaves(arguments))
    slopes = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True, materialize_grads=True)
    return {name: t.detach() for name, t in found.items()} | {
        f"gradient of {name}": slope for name, slope in zip(inputs, slopes, strict=True)
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert found.keys() == expected.keys()
    for name, truth in expected.items():
        torch.testing.assert_close(
            found[name], truth, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def gated_delta_rule(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, beta: np.ndarray, decay: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """arXiv 2412.06464, equation 10, for one sequence, in plain loops: S <- a S (I - b k k^T) + b v k^T, o = S q.

    q, k [T, dk], v [T, dv], beta and decay [T], state [dv, dk]; answers [T, dv] and the last state.
    """
    state, answers = np.array(state, dtype=np.float64), np.zeros(v.shape)
    for t in range(len(k)):
        for i in range(v.shape[1]):
            told = sum(state[i, j] * k[t, j] for j in range(k.shape[1]))
            for j in range(k.shape[1]):
                state[i, j] = decay[t] * (state[i, j] - beta[t] * told * k[t, j]) + beta[t] * v[t, i] * k[t, j]
            answers[t, i] = sum(state[i, j] * q[t, j] for j in range(k.shape[1]))
    return answers, state
