"""What must be right before a speed is printed. Each check compares with an independent float64 truth."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import nestlearn as nl

__all__ = ["Check", "gate"]

SHAPES = [(6, 6), (5, 9), (9, 5), (7,), ()]
MATRICES = [shape for shape in SHAPES if len(shape) == 2]
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of torch.optim.Muon's five Newton-Schulz steps."""


@dataclass(frozen=True)
class Check:
    """The largest difference found, and how large it may be."""

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # False for NaN

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def gate(device: str, compiled: bool) -> list[Check]:
    """Run every check; ``compiled`` adds the one that needs a compiler."""
    checks = [
        Check("Adam = torch AdamW, 20 steps, float64", _adam_error(device, torch.float64), 1e-9),
        Check("Adam = torch AdamW, 20 steps, float32", _adam_error(device, torch.float32), 1e-5),
        Check("Muon = float64 reference, 20 steps", _muon_error(device), 1e-9),
        Check("M3(slow_weight=0) = its fast path, 20 steps, float64", _m3_error(device), 1e-9),
        Check(
            'DeepMomentum(memory=False) = read-out of the gradient, "newton_schulz"', _deep_error(device, True), 1e-9
        ),
        Check('DeepMomentum(memory=False) = read-out of the gradient, "identity"', _deep_error(device, False), 1e-9),
        Check("Newton-Schulz in the timed precision, relative to float64", _low_precision_error(device), 0.1),
    ]
    if compiled:
        error = _compiled_error(device)
        checks.append(Check("PreconditionedMomentum(compile=True) = as it is, 20 steps, float32", error, 1e-5))
    return checks


def _run(
    build: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    shapes: list[tuple[int, ...]],
    device: str,
    dtype: torch.dtype = torch.float64,
    steps: int = 20,
) -> list[Tensor]:
    """Parameters after some steps with gradients that depend on the seed alone."""
    generator = torch.Generator().manual_seed(1)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

    parameters = [nn.Parameter(draw(shape)) for shape in shapes]
    optimizer = build(parameters)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = draw(tuple(parameter.shape))
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def _largest_difference(ours: list[Tensor], truth: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, truth, strict=True))


class _Reference(torch.optim.Optimizer):
    """W <- (1 - lr weight_decay) W - lr update(gradient, state), one matrix at a time."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float,
        weight_decay: float,
        update: Callable[[Tensor, dict[str, Any]], Tensor],
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self._update = update

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                update = self._update(parameter.grad, self.state[parameter])
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * update)


def _orthogonalised(matrix: Tensor) -> Tensor:
    """Five Newton-Schulz steps through the singular value decomposition, scaled to entries like Adam's."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    a, b, c = COEFFICIENTS
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ vh * (0.2 * max(matrix.shape) ** 0.5)


def _average(gradient: Tensor, state: dict[str, Any], retention: float) -> Tensor:
    state["average"] = retention * state.get("average", 0) + (1 - retention) * gradient
    return state["average"]


def _compiled_error(device: str) -> float:
    """Of a parameter that is large enough to be compiled, and of a rule that torch has no kernel for."""
    found = [
        _run(
            lambda p, c=compiles: nl.optim.PreconditionedMomentum(p, lr=0.01, compile=c),
            [(256, 256)],
            device,
            torch.float32,
        )
        for compiles in (True, False)
    ]
    return _largest_difference(*found)


def _adam_error(device: str, dtype: torch.dtype) -> float:
    settings = {"lr": 0.03, "weight_decay": 0.1, "betas": (0.8, 0.95)}
    ours = _run(lambda p: nl.optim.Adam(p, **settings), SHAPES, device, dtype)
    return _largest_difference(ours, _run(lambda p: torch.optim.AdamW(p, **settings), SHAPES, device, dtype))


def _muon_error(device: str) -> float:
    def update(gradient: Tensor, state: dict[str, Any]) -> Tensor:
        return _orthogonalised(0.9 * _average(gradient, state, 0.9) + 0.1 * gradient)

    ours = _run(lambda p: nl.optim.Muon(p, lr=0.03, retention=0.9, weight_decay=0.1), MATRICES, device)
    return _largest_difference(ours, _run(lambda p: _Reference(p, 0.03, 0.1, update), MATRICES, device))


def _m3_error(device: str) -> float:
    def update(gradient: Tensor, state: dict[str, Any]) -> Tensor:
        return _orthogonalised(_average(gradient, state, 0.9))

    ours = _run(lambda p: nl.optim.M3(p, lr=0.03, retention=0.9, slow_weight=0.0), MATRICES, device)
    return _largest_difference(ours, _run(lambda p: _Reference(p, 0.03, 0.0, update), MATRICES, device))


def _deep_error(device: str, orthogonal: bool) -> float:
    def update(gradient: Tensor, state: dict[str, Any]) -> Tensor:
        # Without orthogonalisation the gradient is given entries of root mean square 0.2.
        return _orthogonalised(gradient) if orthogonal else gradient * (0.2 / gradient.square().mean().sqrt())

    settings: dict[str, Any] = {"lr": 0.03, "memory": False, "skip_retention": 0.0}
    readout = "newton_schulz" if orthogonal else "identity"
    ours = _run(lambda p: nl.optim.DeepMomentum(p, readout=readout, **settings), MATRICES, device)
    return _largest_difference(ours, _run(lambda p: _Reference(p, 0.03, 0.0, update), MATRICES, device))


def _low_precision_error(device: str) -> float:
    """Above the block size too, so that the paths that are timed are the paths that are checked."""
    errors = []
    for shape in ((64, 64), (64, 256), (256, 64), (576, 576), (576, 1152)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(device)
        truth = _orthogonalised(matrix) / (0.2 * max(shape) ** 0.5)
        difference = nl.ops.newton_schulz(matrix.float()).double() - truth
        errors.append(float(difference.norm() / truth.norm()))
    return max(errors)
