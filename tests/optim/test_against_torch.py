"""Closed forms: our optimizers walk, step by step, where `torch.optim` and plain formulas written here walk.

Float64 and 60 steps, so that a wrong constant, order or correction cannot hide in rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl

STEPS = 60
Path = list[list[Tensor]]
Make = Callable[[nn.Module], torch.optim.Optimizer]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 4)).double()


def walk(make: Make, steps: int = STEPS, matrices: bool = False) -> Path:
    """The parameters after each of `steps` steps on a new batch each; `matrices` freezes everything else."""
    module = network()
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.ndim == 2 or not matrices)
    optimizer = make(module)
    generator = torch.Generator().manual_seed(1)
    path: Path = []
    for _ in range(steps):
        inputs, targets = (torch.randn(16, width, generator=generator, dtype=torch.float64) for width in (6, 4))
        optimizer.zero_grad()
        (module(inputs) - targets).square().mean().backward()
        optimizer.step()
        path.append([parameter.detach().clone() for parameter in module.parameters() if parameter.requires_grad])
    return path


def learned(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def compare(ours: Make, theirs: Make, tolerance: float = 1e-9, **options: Any) -> None:
    for step, (one, two) in enumerate(zip(walk(ours, **options), walk(theirs, **options), strict=True)):
        for place, (a, b) in enumerate(zip(one, two, strict=True)):
            if a.dtype == b.dtype and torch.allclose(a, b, rtol=tolerance, atol=tolerance):
                continue  # `torch.testing` takes as long as a step to find that out
            torch.testing.assert_close(
                a, b, rtol=tolerance, atol=tolerance, msg=lambda m, s=step, p=place: f"step {s}, parameter {p}: {m}"
            )


class Plain(torch.optim.Optimizer):
    """The reference: W <- (1 - lr decay) W - lr update(gradient, state), one parameter at a time."""

    def __init__(self, params: Any, lr: float, update: Callable[[Tensor, dict], Tensor], decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr})
        self.update, self.decay = update, decay

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                update = self.update(parameter.grad, self.state[parameter])
                parameter.mul_(1 - group["lr"] * self.decay).sub_(group["lr"] * update)


# --------------------------------------------------------------------------------------- against torch


@pytest.mark.parametrize("maximize", [False, True])
def test_gradient_descent_is_sgd(maximize: bool) -> None:
    lr = 1e-3 if maximize else 0.1
    compare(
        lambda module: nl.optim.GradientDescent(module.parameters(), lr=lr, maximize=maximize),
        lambda module: torch.optim.SGD(module.parameters(), lr=lr, maximize=maximize),
    )


@pytest.mark.parametrize("retention", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_sgd_with_momentum(retention: float, nesterov: bool) -> None:
    compare(
        lambda module: nl.optim.Momentum(module.parameters(), lr=0.05, retention=retention, nesterov=nesterov),
        lambda module: torch.optim.SGD(
            module.parameters(), lr=0.05, momentum=retention, nesterov=nesterov and retention > 0
        ),
    )


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9), (0.8, 0.5)], ids=str)
def test_adam_is_adamw(weight_decay: float, betas: tuple[float, float]) -> None:
    settings: dict[str, Any] = {"lr": 0.01, "betas": betas, "eps": 1e-6, "weight_decay": weight_decay}
    compare(
        lambda module: nl.optim.Adam(module.parameters(), **settings),
        lambda module: torch.optim.AdamW(module.parameters(), **settings),
    )


def test_adam_with_default_arguments_is_adamw_without_decay() -> None:
    compare(
        lambda module: nl.optim.Adam(module.parameters()),
        lambda module: torch.optim.AdamW(module.parameters(), weight_decay=0.0),
    )


@pytest.mark.parametrize(("scale", "adjust"), [("spectral", "original"), ("rms", "match_rms_adamw")])
def test_muon_stays_near_torch_whose_iteration_runs_in_bfloat16(scale: str, adjust: str) -> None:
    def path(make: Make) -> Tensor:
        return torch.cat([tensor.flatten() for tensor in walk(make, steps=20, matrices=True)[-1]])

    start = torch.cat([parameter.detach().flatten() for parameter in network().parameters() if parameter.ndim == 2])
    ours = path(lambda m: nl.optim.Muon(learned(m), lr=0.01, retention=0.95, nesterov=True, scale=scale))
    theirs = path(
        lambda m: torch.optim.Muon(
            learned(m), lr=0.01, weight_decay=0.0, momentum=0.95, nesterov=True, adjust_lr_fn=adjust
        )
    )
    assert (ours - theirs).norm() < 0.03 * (theirs - start).norm()


# ------------------------------------------------------------------------- against formulas of our own


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Five quintic Newton-Schulz steps with Jordan's coefficients, by the singular values alone: U f(S) V^T."""
    left, values, right = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(steps):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


def muon_reference(retention: float, nesterov: bool, scale: str) -> Callable[[Tensor, dict], Tensor]:
    def update(gradient: Tensor, state: dict) -> Tensor:
        memory = retention * state.get("m", torch.zeros_like(gradient)) + (1 - retention) * gradient
        state["m"] = memory
        shown = retention * memory + (1 - retention) * gradient if nesterov else memory
        rows, columns = gradient.shape
        factor = math.sqrt(max(1, rows / columns)) if scale == "spectral" else 0.2 * math.sqrt(max(rows, columns))
        return factor * orthogonalised(shown)

    return update


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("scale", ["rms", "spectral"])
def test_muon_is_newton_schulz_of_momentum(scale: str, nesterov: bool) -> None:
    compare(
        lambda m: nl.optim.Muon(learned(m), lr=0.01, retention=0.9, nesterov=nesterov, scale=scale, weight_decay=0.1),
        lambda m: Plain(learned(m), 0.01, muon_reference(0.9, nesterov, scale), decay=0.1),
        matrices=True,
    )


CHOICES: dict[str, Callable[[nn.Module], Any]] = {
    "parameters": lambda module: list(module.parameters()),
    "modules": lambda module: list(module)[::2],
    "patterns": lambda module: ["0.*", "*.weight"],
    "function": lambda module: lambda name, parameter: parameter.ndim == 2 and name.endswith("weight"),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_elementwise_matrices_and_all_vectors_are_adamws(choice: str) -> None:
    """However they are named, parameters taken from the matrix rule go with AdamW, at the lr given for them."""
    compare(
        lambda m: nl.optim.Muon(
            m.named_parameters(), lr=5.0, elementwise=CHOICES[choice](m), elementwise_lr=0.01, weight_decay=0.1
        ),
        lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, weight_decay=0.1),
    )


# ------------------------------------------------------------------------------------ degenerate cases


@pytest.mark.parametrize("literal", [False, True])
def test_delta_momentum_that_forgets_nothing_by_error_is_momentum(literal: bool) -> None:
    """O4 with zeta = 0 is O2."""
    compare(
        lambda m: nl.optim.DeltaMomentum(m.parameters(), lr=0.05, retention=0.8, inner_lr=0.0, literal=literal),
        lambda m: nl.optim.Momentum(m.parameters(), lr=0.05, retention=0.8),
    )


def test_m3_without_slow_memory_is_its_fast_path() -> None:
    """O14 with a = 0 does not depend on what the slow memory holds."""
    compare(
        lambda m: nl.optim.M3(m.parameters(), slow_weight=0.0, slow_period=2, slow_retention=0.5),
        lambda m: nl.optim.M3(m.parameters(), slow_weight=0.0, slow_period=1000, slow_retention=0.9),
    )


@pytest.mark.parametrize("levels", [1, 2])
def test_deep_momentum_without_memory_is_the_read_out_of_the_gradient(levels: int) -> None:
    """O5 with the memory off and no linear momentum beside it: nothing is carried from step to step."""
    module = network()
    settings: dict[str, Any] = {"memory": False, "skip_retention": 0.0, "hidden": 4, "levels": levels}
    optimizer = nl.optim.DeepMomentum(module.parameters(), lr=0.01, **settings)
    replay: list[Tensor] = []
    start = [parameter.detach().clone() for parameter in module.parameters()]
    for _ in range(2):
        with torch.no_grad():
            for parameter, old in zip(module.parameters(), start, strict=True):
                parameter.copy_(old)
        optimizer.zero_grad()
        module(torch.ones(3, 6, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
        replay.append(module[0].weight.detach().clone())
    gradient = module[0].weight.grad
    expected = start[0] - 0.01 * 0.2 * math.sqrt(9) * orthogonalised(gradient)
    torch.testing.assert_close(replay[0], expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(replay[1], replay[0], rtol=1e-9, atol=1e-9)


def test_deep_momentum_without_memory_beside_a_linear_one_is_muon() -> None:
    """O5 with the memory off and a skip path that remembers: Newton-Schulz of momentum (O10)."""
    compare(
        lambda m: nl.optim.DeepMomentum(learned(m), lr=0.01, skip_retention=0.9, memory=False, hidden=4),
        lambda m: nl.optim.Muon(learned(m), lr=0.01, retention=0.9, nesterov=False),
        matrices=True,
    )


def test_secant_without_memory_and_muon_without_nesterov_agree() -> None:
    """O19 with its memory off is Newton-Schulz of momentum."""
    compare(
        lambda m: nl.optim.SecantMomentum(learned(m), lr=0.01, retention=0.9, memory=False),
        lambda m: nl.optim.Muon(learned(m), lr=0.01, retention=0.9, nesterov=False),
        matrices=True,
    )


def test_layer_momentum_without_memory_is_newton_schulz_of_momentum() -> None:
    """O15 with its memory off; the update has the length of an orthogonal matrix, in the units of scale="rms"."""

    def update(gradient: Tensor, state: dict) -> Tensor:
        state["m"] = 0.9 * state.get("m", torch.zeros_like(gradient)) + 0.1 * gradient
        matrix, sides = orthogonalised(state["m"]), gradient.shape
        return 0.2 * math.sqrt(max(sides)) * math.sqrt(min(sides)) * matrix / matrix.norm()

    compare(
        lambda m: nl.optim.LayerMomentum(learned(m), lr=0.01, model=m, retention=0.9, memory=False),
        lambda m: Plain(learned(m), 0.01, update),
        matrices=True,
    )


def test_delta_gradient_descent_is_the_exact_argmin() -> None:
    """O12 on one example solves argmin 1/2 ||W x + delta||^2 + 1/(2 lr) ||W - W_t||^2."""
    torch.manual_seed(2)
    layer = nn.Linear(5, 3, bias=False).double()
    x, target = torch.randn(5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    optimizer = nl.optim.DeltaGradientDescent(layer.parameters(), lr=0.3, model=layer)
    for _ in range(STEPS):
        before = layer.weight.detach().clone()
        optimizer.zero_grad()
        (0.5 * (layer(x[None])[0] - target).square().sum()).backward()
        delta = (before @ x - target)[:, None]
        optimizer.step()
        eye = torch.eye(5, dtype=torch.float64)
        best = (before / 0.3 - delta @ x[None]) @ torch.linalg.inv(torch.outer(x, x) + eye / 0.3)
        torch.testing.assert_close(layer.weight.detach(), best, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["GradientDescent", "Momentum", "Adam"])
def test_a_period_is_a_larger_batch(name: str) -> None:
    """Four steps with period 4 are one step of the plain optimizer on the sum of the four losses."""
    torch.manual_seed(3)
    data = torch.randn(STEPS, 8, 6, dtype=torch.float64)
    slow, fast = network(), network()
    cls = getattr(nl.optim, name)
    first, second = cls(slow.parameters(), lr=0.01, period=4), cls(fast.parameters(), lr=0.01)
    for start in range(0, STEPS, 4):
        second.zero_grad()
        for batch in data[start : start + 4]:
            first.zero_grad()
            slow(batch).square().mean().backward()
            first.step()
            fast(batch).square().mean().backward()
        second.step()
    for one, two in zip(slow.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
