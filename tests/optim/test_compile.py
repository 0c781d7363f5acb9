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


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel of torch's writes is not compiled: without it, the same rules are."""
    monkeypatch.setattr("nestlearn.optim.plan.fits", lambda kernel, parameter: False)


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


RULES: dict[str, tuple[type, dict[str, Any]]] = {
    **CASES,
    "GradientDescent": (nl.optim.GradientDescent, {}),
    "DeltaMomentum": (nl.optim.DeltaMomentum, {}),
    "PreconditionedMomentum": (nl.optim.PreconditionedMomentum, {}),
    "Muon": (nl.optim.Muon, {}),
}


@pytest.mark.parametrize("case", RULES)
def test_whatever_a_scheduler_changes_is_no_new_compilation(case: str, fresh_dynamo: Any) -> None:
    """lr, decay, betas or momentum, the learning rate of single entries: all move at every step."""
    cls, settings = RULES[case]
    eager, compiled = lines(), lines()
    pair = cls(eager, elementwise_lr=0.02, **settings), cls(compiled, compile=True, elementwise_lr=0.02, **settings)
    generator, counts = torch.Generator().manual_seed(1), []
    for step in range(6):
        for one, two in zip(eager, compiled, strict=True):
            one.grad = two.grad = torch.randn(one.shape, generator=generator)
        for optimizer in pair:
            group = optimizer.param_groups[0]
            group["lr"], group["weight_decay"] = 0.01 / (1 + step), 0.1 * (step % 2)
            if "betas" in group:
                group["betas"] = (0.95 - 0.02 * step, 0.999)
            else:
                group["momentum"] = 0.95 - 0.02 * step
            optimizer.step()
        counts.append(graphs(fresh_dynamo))
    assert counts[0] >= 1, "nothing was compiled"
    assert counts[-1] == counts[0], f"compiled again after the first step: {counts}"
    for one, two in zip(eager, compiled, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def lines() -> list[nn.Parameter]:
    """Two vectors that every optimizer gives to its element-wise rule, and a small one."""
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(size, generator=generator)) for size in (SMALL, SMALL + 3, 7)]


def test_a_kernel_rests_where_a_parameter_has_no_gradient(fresh_dynamo: Any) -> None:
    eager, compiled = lines(), lines()
    one, two = nl.optim.Adam(eager, lr=0.01), nl.optim.Adam(compiled, lr=0.01, compile=True)
    generator, counts = torch.Generator().manual_seed(1), []
    for absent in (None, 0, 1, None, 0, None):
        for place, (a, b) in enumerate(zip(eager, compiled, strict=True)):
            a.grad = b.grad = None if place == absent else torch.randn(a.shape, generator=generator)
        one.step()
        two.step()
        counts.append(graphs(fresh_dynamo))
    assert counts[-1] == counts[0] == 1
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


class Mixture(nl.optim.Optimizer):
    """A rule that takes its setting as a number only."""

    def __init__(self, params: Any, lr: float = 0.1, *, share: float = 0.5, **common: Any) -> None:
        super().__init__(params, lr, {"share": share}, **common)

    def element_rule(self, group: dict[str, Any]) -> nl.memory.Rule:
        box = nl.memory.average_box("momentum", 0.9)
        return nl.memory.Consult(
            memories=lambda shape: (box,),
            combine=lambda scene: torch.lerp(scene.gradient, scene.answers["momentum"], float(group["share"])),
        )


def test_a_rule_that_takes_numbers_only_is_compiled_for_them(fresh_dynamo: Any) -> None:
    eager, compiled = lines(), lines()
    pair = Mixture(eager), Mixture(compiled, compile=True)
    for share in (0.5, 0.25):
        for one, two in zip(eager, compiled, strict=True):
            one.grad = two.grad = torch.ones_like(one)
        for optimizer in pair:
            optimizer.param_groups[0]["share"] = share
            optimizer.step()
    assert graphs(fresh_dynamo) >= 1
    for one, two in zip(eager, compiled, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_numbers_that_never_come_back_are_compiled_for_a_while_only(fresh_dynamo: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("nestlearn.optim.compiled.MOST_KERNELS", 2)
    eager, compiled = lines(), lines()
    pair = Mixture(eager), Mixture(compiled, compile=True)
    for share in (0.5, 0.4, 0.5, 0.3):
        for one, two in zip(eager, compiled, strict=True):
            one.grad = two.grad = torch.ones_like(one)
        for optimizer in pair:
            optimizer.param_groups[0]["share"] = share
        pair[0].step()
        if share == 0.3:
            with pytest.warns(UserWarning, match="has had 2 sets of them, further ones are not compiled"):
                pair[1].step()
        else:
            pair[1].step()
    for one, two in zip(eager, compiled, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_what_kernels_of_torch_write_is_not_compiled(fresh_dynamo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    plain, compiled = weights(), weights()
    run(nl.optim.Adam(plain), plain, [0.01] * 3, fresh_dynamo)
    assert run(nl.optim.Adam(compiled, compile=True), compiled, [0.01] * 3, fresh_dynamo) == [0, 0, 0]
    for one, two in zip(plain, compiled, strict=True):
        assert torch.equal(one, two)
