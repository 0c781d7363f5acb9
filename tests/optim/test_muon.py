"""Muon with a preconditioner memory, and M3's two speeds, against loops and singular values (O10, O14, O18)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.rules.shape import update_scale

SHAPES = [(3, 5), (5, 3), (4, 4)]


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz with Jordan's coefficients, on singular values."""
    left, values, right = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(steps):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


def walk(optimizer: torch.optim.Optimizer, weight: nn.Parameter, gradients: Tensor) -> Tensor:
    path = []
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        path.append(weight.detach().clone())
    return torch.stack(path)


def updates(cls: type, gradients: Tensor, **settings: Any) -> Tensor:
    """What is subtracted from the weights at each step, lr = 1."""
    weight = nn.Parameter(torch.zeros_like(gradients[0]))
    path = walk(cls([weight], lr=1.0, **settings), weight, gradients)
    return -torch.diff(path, dim=0, prepend=torch.zeros_like(path[:1]))


# ------------------------------------------------------------------------------------------------------ M3


@pytest.mark.parametrize("scale", ["rms", "spectral"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_m3_without_its_slow_memory_is_muon_without_nesterov(shape: tuple[int, int], scale: str) -> None:
    gradients = draw(15, *shape)
    one = updates(nl.optim.M3, gradients, slow_weight=0.0, retention=0.9, scale=scale)
    two = updates(nl.optim.Muon, gradients, nesterov=False, retention=0.9, scale=scale)
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_m3_is_its_formula(shape: tuple[int, int]) -> None:
    """O14 with averages: the slow memory is written every f steps with the mean gradient since."""
    period, fast_kept, slow_kept, weight = 4, 0.8, 0.5, 0.3
    gradients = draw(14, *shape)
    found = updates(
        nl.optim.M3, gradients, retention=fast_kept, slow_retention=slow_kept, slow_period=period, slow_weight=weight
    )
    fast = slow = answer = torch.zeros(shape, dtype=torch.float64)
    for time, gradient in enumerate(gradients):
        fast = fast_kept * fast + (1 - fast_kept) * gradient
        if time % period == period - 1:
            slow = slow_kept * slow + (1 - slow_kept) * gradients[time + 1 - period : time + 1].mean(0)
            answer = orthogonalised(slow)
        expected = 0.2 * math.sqrt(max(shape)) * (orthogonalised(fast) + weight * answer) / (1 + weight)
        torch.testing.assert_close(found[time], expected, rtol=1e-9, atol=1e-9)


def test_the_slow_memory_changes_once_in_its_period() -> None:
    weight = nn.Parameter(draw(3, 5))
    optimizer = nl.optim.M3([weight], slow_period=4)
    seen = []
    for _ in range(13):
        weight.grad = draw(3, 5)
        optimizer.step()
        state = optimizer.state[weight]
        seen.append({name: tensor.clone() for name, tensor in state.items()})
    names = [name for name in seen[0] if name.startswith("slow") and "pending" not in name]
    assert len(names) == 2  # the memory and its kept, orthogonalised answer
    for name in names:
        changed = [step for step in range(1, 13) if not torch.equal(seen[step][name], seen[step - 1][name])]
        assert changed == [3, 7, 11], name
    fast = [name for name in seen[0] if name.startswith("fast")]
    assert all(not torch.equal(seen[step][fast[0]], seen[step - 1][fast[0]]) for step in range(1, 13))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_literal_m3_is_algorithm_1_as_printed(shape: tuple[int, int]) -> None:
    """M1, M2 and V only accumulate; the update is (NS(M1) + a NS(M2)) / sqrt(V + eps)."""
    first, slow_share, second, weight, period = 0.9, 0.6, 0.99, 0.3, 3
    gradients = draw(11, *shape)
    found = updates(
        nl.optim.M3,
        gradients,
        retention=first,
        slow_retention=slow_share,
        second_retention=second,
        slow_period=period,
        slow_weight=weight,
        literal=True,
    )
    fast = slow = squares = since = answer = torch.zeros(shape, dtype=torch.float64)
    for time, gradient in enumerate(gradients):
        fast, squares, since = fast + first * gradient, squares + second * gradient**2, since + gradient
        if time % period == period - 1:
            slow, since = slow + slow_share * since, torch.zeros_like(since)
            answer = orthogonalised(slow)
        expected = (orthogonalised(fast) + weight * answer) / (squares + 1e-8).sqrt()
        torch.testing.assert_close(found[time], expected, rtol=1e-8, atol=1e-8)


def test_the_second_moment_of_m3_turns_the_update_and_keeps_its_length() -> None:
    gradients = draw(6, 4, 6) * torch.tensor([0.1, 1, 1, 1, 1, 10]).double()
    plain = updates(nl.optim.M3, gradients, slow_weight=0.0)
    divided = updates(nl.optim.M3, gradients, slow_weight=0.0, second_retention=0.9)
    torch.testing.assert_close(divided.norm(dim=(1, 2)), plain.norm(dim=(1, 2)))
    mean = torch.zeros_like(gradients[0])
    for time, gradient in enumerate(gradients):
        mean = 0.9 * mean + 0.1 * gradient**2
        expected = plain[time] / ((mean / (1 - 0.9 ** (time + 1))).sqrt() + 1e-8)
        expected = expected * plain[time].norm() / expected.norm()
        torch.testing.assert_close(divided[time], expected, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------- preconditioner memory


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", [(4, 6), (6, 4)], ids=["wide", "tall"])
def test_the_preconditioner_memory_finds_the_nearest_orthogonal_matrix(shape: tuple[int, int], nesterov: bool) -> None:
    """O18: for a gradient that stays, one iteration a step reaches U V^T, up to the ridge that damps small values."""
    gradient = draw(*shape)
    found = updates(nl.optim.Muon, gradient.expand(40, *shape), readout="memory", scale="spectral", nesterov=nesterov)
    factor = math.sqrt(max(1, shape[0] / shape[1]))
    left, values, right = torch.linalg.svd(gradient / gradient.norm(), full_matrices=False)
    damped = values / (values**2 + 1e-3 / min(shape)).sqrt()
    torch.testing.assert_close(found[-1], factor * left @ torch.diag(damped) @ right, rtol=1e-7, atol=1e-7)
    nearest = factor * left @ right
    assert (found[-1] - nearest).norm() < 0.05 * nearest.norm()
    assert (found[0] - nearest).norm() > 0.2 * nearest.norm()  # it had to be found


def test_the_preconditioner_memory_follows_a_gradient_that_drifts() -> None:
    """The point of keeping it: one iteration a step is enough when S changes slowly."""
    start, drift = draw(6, 4), draw(6, 4)
    gradients = torch.stack([start + 0.01 * step * drift for step in range(80)])
    found = updates(nl.optim.Muon, gradients, readout="memory", retention=0.0, nesterov=False, scale="spectral")
    left, _, right = torch.linalg.svd(gradients[-1], full_matrices=False)
    nearest = math.sqrt(6 / 4) * left @ right
    assert (found[-1] - nearest).norm() < 0.1 * nearest.norm()


@pytest.mark.parametrize("scale", ["rms", "spectral"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_update_scale(shape: tuple[int, int], scale: str) -> None:
    expected = 0.2 * math.sqrt(max(shape)) if scale == "rms" else math.sqrt(max(1, shape[0] / shape[1]))
    assert update_scale(torch.Size(shape), scale) == pytest.approx(expected)
    assert update_scale(torch.Size((7, *shape)), scale) == pytest.approx(expected)


def test_one_learning_rate_fits_all_shapes() -> None:
    """scale="rms": entries of an update have root mean square about 0.2, as Adam's do."""
    for shape in [(8, 8), (8, 32), (64, 4)]:
        (update,) = updates(nl.optim.Muon, draw(1, *shape))
        assert update.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.3)
