"""What must be right before a speed is printed: each timed memory equals the token by token oracle."""

import torch
from torch import Tensor

from benchmarks.ops.cases import CASES, Case, Shape, inputs
from benchmarks.optim.gate import Check
from nestlearn.ops import parallel_scan, scan

__all__ = ["gate"]


def gate(device: str) -> list[Check]:
    """Outputs and all gradients, float64, 150 tokens (ragged in chunks of 64); then float32 against float64."""
    checks = []
    for case in CASES:
        truth = _run(scan, case, device, torch.float64)
        found = _run(parallel_scan, case, device, torch.float64)
        timed = _run(parallel_scan, case, device, torch.float32)
        checks.append(Check(f"{case.name} = oracle, float64", _difference(found, truth), 1e-10))
        checks.append(Check(f"{case.name}, float32 as timed, relative to float64", _difference(timed, truth), 1e-4))
    return checks


def _run(form: object, case: Case, device: str, dtype: torch.dtype) -> list[Tensor]:
    given = inputs(Shape(150, batch=1, heads=2, width=8), device)
    given = {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in given.items()}
    memory = case.memory(8)
    generator = torch.Generator().manual_seed(0)
    start = {
        name: torch.randn(tensor.shape, generator=generator).to(device, dtype).requires_grad_()
        for name, tensor in memory.init()["model"].items()
    }
    y, _ = form(memory, **given, state={"model": start}, chunk=case.chunk)  # type: ignore[operator]
    slopes = torch.autograd.grad(y.square().sum(), [*given.values(), *start.values()])
    return [y.detach(), *slopes]


def _difference(found: list[Tensor], truth: list[Tensor]) -> float:
    """The largest difference, relative to the largest entry of its tensor."""
    pairs = zip(found, truth, strict=True)
    return max(float((a.double() - b.double()).abs().max() / b.double().abs().max()) for a, b in pairs)
