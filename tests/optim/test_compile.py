"""``compile=True``: the same numbers from one kernel, compiled once however the learning rate changes."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.optim.lanes import SMALL

COMPILER = os.environ.get("CXX") or next((name for name in ("g++", "clang++", "c++") if shutil.which(name)), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        COMPILER is None or shutil.which(COMPILER.split()[0]) is None,
        reason="torch.compile needs a C++ compiler on the CPU: install g++ or clang++, or set CXX",
    ),
]

SHAPES = [(SMALL // 64, 64), (SMALL + 1,), (3, 5), (7,)]  # two that are compiled, two that share a flat lane


@pytest.fixture
def fresh_dynamo() -> Any:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


def graphs(counters: Any) -> int:
    return counters["stats"]["unique_graphs"]


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def run(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], lrs: list[Any], counters: Any) -> list[int]:
    """Step once for each lr; the number of graphs compiled after every step."""
    generator, compiled = torch.Generator().manual_seed(1), []
    for lr in lrs:
        for parameter in params:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        compiled.append(graphs(counters))
    return compiled


CASES: dict[str, tuple[type, dict[str, Any]]] = {
    "Adam": (nl.optim.Adam, {"weight_decay": 0.1}),
    "Momentum": (nl.optim.Momentum, {"nesterov": True}),
}


@pytest.mark.parametrize("lr_type", ["number", "tensor"])
@pytest.mark.parametrize("case", CASES)
def test_compiled_equals_eager_without_compiling_again(case: str, lr_type: str, fresh_dynamo: Any) -> None:
    cls, settings = CASES[case]
    lrs: list[Any] = [0.01 / (1 + step) for step in range(10)]
    if lr_type == "tensor":
        lrs = [torch.tensor(lr) for lr in lrs]
    eager, compiled = weights(), weights()
    assert run(cls(eager, **settings), eager, lrs, fresh_dynamo)[-1] == 0
    counts = run(cls(compiled, compile=True, **settings), compiled, lrs, fresh_dynamo)
    assert counts[0] >= 1, "nothing was compiled"
    assert counts[-1] == counts[0], f"compiled again after the first step: {counts}"
    for one, two in zip(eager, compiled, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_a_loaded_state_goes_on_compiled(fresh_dynamo: Any) -> None:
    """After a load the state's tensors are new ones; the kernel has to write those."""
    lrs: list[Any] = [0.01] * 3
    straight, resumed = weights(), weights()
    optimizer = nl.optim.Adam(straight, compile=True)
    run(optimizer, straight, lrs, fresh_dynamo)
    first = nl.optim.Adam(resumed, compile=True)
    run(first, resumed, lrs, fresh_dynamo)
    second = nl.optim.Adam(resumed, compile=True)
    second.load_state_dict(first.state_dict())
    run(optimizer, straight, lrs, fresh_dynamo)
    run(second, resumed, lrs, fresh_dynamo)
    for one, two in zip(straight, resumed, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)
    moved: list[Tensor] = [second.state[p]["momentum.model.value"] for p in resumed]
    for ours, theirs in zip(moved, (optimizer.state[p]["momentum.model.value"] for p in straight), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
