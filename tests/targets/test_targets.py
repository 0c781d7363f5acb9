"""Each target P against its formula, asked as an optimizer asks it: write after write, through a rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nestlearn.memory import Consult, Context
from nestlearn.targets import (
    TARGETS,
    AverageGradient,
    GaussNewton,
    HessianDiagonal,
    Identity,
    Kronecker,
    NextGradient,
    Ones,
    OrthogonalMomentum,
    RandomFeatures,
    SecondMoment,
    Target,
    make_target,
    random_features,
)

STEPS = 12


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def ask(target: Target, gradients: Tensor, **observed: Tensor) -> list[Tensor]:
    """P for each gradient [time, *B, out, in]; observations are [time, ...] too."""
    rule = Consult(memories=target.memories, combine=target)
    state = rule.init({"weight": torch.zeros_like(gradients[0])})
    found = []
    for time, gradient in enumerate(gradients):
        observations = {name: values[time] for name, values in observed.items()}
        kept = gradient.clone()
        update, state = rule.update(state, {"weight": gradient}, Context(time=time, observations=observations))
        assert torch.equal(gradient, kept), "the gradient was changed"
        found.append(update["weight"])
    return found


def average(values: Tensor, retention: float) -> Tensor:
    """The mean of values [time, ...] with weights retention^age."""
    weights = retention ** torch.arange(len(values) - 1, -1, -1, dtype=values.dtype)
    return torch.einsum("t,t...->...", weights, values) / weights.sum()


def test_identity_is_the_gradient_and_ones_are_ones() -> None:
    gradients = draw(3, 2, 4)
    assert all(torch.equal(p, g) for p, g in zip(ask(Identity(), gradients), gradients, strict=True))
    assert all(torch.equal(p, torch.ones(2, 4).double()) for p in ask(Ones(), gradients))


def test_second_moment_divides_by_the_root_of_the_mean_square() -> None:
    gradients = draw(STEPS, 2, 4)
    for time, found in enumerate(ask(SecondMoment(retention=0.9, eps=1e-3), gradients)):
        expected = gradients[time] / (average(gradients[: time + 1].square(), 0.9).sqrt() + 1e-3)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_second_moment_of_nothing_is_zero() -> None:
    assert not torch.stack(ask(SecondMoment(), torch.zeros(3, 2, 4).double())).any()


def test_average_gradient_is_the_mean_with_forgetting() -> None:
    gradients = draw(STEPS, 2, 4)
    for time, found in enumerate(ask(AverageGradient(retention=0.8), gradients)):
        torch.testing.assert_close(found, average(gradients[: time + 1], 0.8), rtol=1e-12, atol=1e-12)


def root(matrix: Tensor, damping: float) -> Tensor:
    """(A + damping * largest eigenvalue)^(-1/4)."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag((values.clamp(min=0) + damping * values[-1]) ** -0.25) @ vectors.T


@pytest.mark.parametrize("period", [1, 3])
@pytest.mark.parametrize("damping", [1e-6, 0.1])
def test_kronecker_is_shampoo(damping: float, period: int) -> None:
    """O9: L^-1/4 u R^-1/4; with a period the factors see, and the roots follow, every third gradient."""
    gradients = draw(STEPS, 3, 5)
    target = Kronecker(retention=0.9, damping=damping, period=period)
    left, right = torch.zeros(3, 3).double(), torch.zeros(5, 5).double()
    for time, found in enumerate(ask(target, gradients)):
        gradient = gradients[time]
        if time % period == 0:
            left = 0.9 * left + 0.1 * gradient @ gradient.T
            right = 0.9 * right + 0.1 * gradient.T @ gradient
        expected = root(left, damping) @ gradient @ root(right, damping)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_kronecker_takes_stacks_of_matrices() -> None:
    gradients = draw(4, 2, 3, 5)
    together = torch.stack(ask(Kronecker(), gradients))
    for number in range(2):
        alone = torch.stack(ask(Kronecker(), gradients[:, number]))
        torch.testing.assert_close(together[:, number], alone, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)], ids=["wide", "tall"])
def test_orthogonal_momentum_is_newton_schulz_of_the_average(shape: tuple[int, int]) -> None:
    """O10, with the iteration written on singular values; entries have mean square about one."""
    gradients = draw(STEPS, *shape)
    for time, found in enumerate(ask(OrthogonalMomentum(retention=0.9), gradients)):
        mean = average(gradients[: time + 1], 0.9)
        left, values, right = torch.linalg.svd(mean / mean.norm(), full_matrices=False)
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        torch.testing.assert_close(found, math.sqrt(5) * left @ torch.diag(values) @ right, rtol=1e-9, atol=1e-9)
        assert found.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.35)


# ----------------------------------------------------------------------------------------- random features


def test_random_features_are_their_formula() -> None:
    """O11: Omega^T tanh(Omega u) / 2 of every row, the matrix scaled to mean square one."""
    matrix = draw(7, 4)
    omega = torch.randn(8, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64) / 2
    rows = matrix / matrix.square().mean().sqrt()
    expected = torch.stack([omega.T @ torch.tanh(omega @ row) / 2 for row in rows])
    torch.testing.assert_close(random_features(matrix, seed=5), expected)
    (found,) = ask(RandomFeatures(seed=5), matrix[None])
    torch.testing.assert_close(found, expected)


@given(st.integers(0, 10_000), st.floats(-6, 6))
def test_random_features_point_uphill_at_any_scale(seed: int, exponent: float) -> None:
    matrix = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = random_features(10**exponent * matrix)
    assert bool(((found * matrix).sum(-1) > 0).all())
    torch.testing.assert_close(found, random_features(matrix))


def test_random_features_of_nothing_are_nothing_and_their_seed_decides() -> None:
    matrix = draw(5, 4)
    assert not random_features(torch.zeros_like(matrix)).any()
    assert torch.equal(random_features(matrix, 1), random_features(matrix, 1))
    assert not torch.allclose(random_features(matrix, 1), random_features(matrix, 2))
    assert random_features(matrix.bfloat16()).dtype == torch.bfloat16


# ---------------------------------------------------------------------------------------------- curvature


@pytest.mark.parametrize("period", [1, 4])
def test_hessian_divides_by_the_averaged_curvature(period: int) -> None:
    gradients, curvature = draw(STEPS, 3, 4), draw(STEPS, 3, 4).abs()
    curvature[:, 0, 0] = 1e-9  # so flat that the floor decides
    target = HessianDiagonal(retention=0.7, floor=0.2, period=period)
    for time, found in enumerate(ask(target, gradients, hessian_diagonal=curvature)):
        mean = average(curvature[: time + 1 : period], 0.7)
        floor = 0.2 * mean.square().mean().sqrt()
        torch.testing.assert_close(found, gradients[time] / torch.maximum(mean, floor), rtol=1e-11, atol=1e-11)


def test_hessian_averages_estimates_before_it_takes_their_size() -> None:
    """Hutchinson's estimates are unbiased with their signs; their absolute values are not."""
    gradients, noise = torch.ones(2, 1, 2).double(), torch.tensor([[[1.0, 3.0]], [[1.0, -1.0]]]).double()
    found = ask(HessianDiagonal(retention=1 - 1e-12, floor=0.0), gradients, hessian_diagonal=noise)
    torch.testing.assert_close(found[1], torch.ones(1, 2).double(), rtol=1e-3, atol=1e-3)


def test_negative_curvature_counts_by_its_size() -> None:
    gradients, curvature = draw(3, 2, 2), -torch.ones(3, 2, 2).double()
    for found, gradient in zip(ask(HessianDiagonal(), gradients, hessian_diagonal=curvature), gradients, strict=True):
        torch.testing.assert_close(found, gradient)


def test_without_curvature_the_gradient_stays() -> None:
    gradients = draw(3, 2, 2)
    for found, gradient in zip(
        ask(HessianDiagonal(), gradients, hessian_diagonal=torch.zeros(3, 2, 2).double()), gradients, strict=True
    ):
        assert torch.equal(found, gradient)


def test_gauss_newton_reads_its_own_measurement() -> None:
    gradients, curvature = draw(STEPS, 3, 4), draw(STEPS, 3, 4).square()
    target = GaussNewton(sampled_loss=lambda: draw(1).sum(), retention=0.7, floor=0.0)
    last = ask(target, gradients, gauss_newton_diagonal=curvature)[-1]
    torch.testing.assert_close(last, gradients[-1] / average(curvature, 0.7), rtol=1e-11, atol=1e-11)


# ------------------------------------------------------------------------------------------- what all share


def made() -> dict[str, Target]:
    given_loss: Callable[[], Tensor] = lambda: torch.zeros(())  # noqa: E731
    return {
        name: GaussNewton(sampled_loss=given_loss) if name == "gauss_newton" else make_target(name) for name in TARGETS
    }


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_targets_point_uphill_and_keep_their_shape(name: str) -> None:
    """For a gradient that repeats, every target but ones has a positive product with it."""
    target, gradient = made()[name], draw(3, 5)
    observed: dict[str, Any] = {}
    if target.observation:
        observed[target.observation] = torch.ones(4, 3, 5).double()
    found = ask(target, gradient.expand(4, 3, 5), **observed)[-1]
    assert found.shape == gradient.shape
    assert found.dtype == gradient.dtype
    if name != "ones":
        assert (found * gradient).sum() > 0


def test_only_the_forecast_is_delayed_and_only_curvature_is_observed() -> None:
    targets = made()
    assert {name for name, target in targets.items() if target.delayed} == {"next_gradient"}
    assert {name: t.observation for name, t in targets.items() if t.observation} == {
        "hessian": "hessian_diagonal",
        "gauss_newton": "gauss_newton_diagonal",
    }
    gradients = draw(2, 2, 2)
    assert torch.equal(ask(NextGradient(), gradients)[1], gradients[1])


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_an_elementwise_target_looks_at_one_entry_alone(name: str) -> None:
    """What ``elementwise`` says decides whether vectors may have the target too."""
    target, gradients = made()[name], draw(4, 3, 5)
    observed = {target.observation: draw(4, 3, 5).abs()} if target.observation else {}
    other = gradients.clone()
    other[:, 1:] += draw(4, 2, 5)
    one, two = ask(target, gradients, **observed)[-1], ask(target, other, **observed)[-1]
    if target.elementwise:
        assert torch.equal(one[0], two[0])
        assert ask(target, gradients[:, 0, 0])[-1].shape == ()
    elif not target.observation:
        assert not torch.allclose(one[0], two[0])


# ----------------------------------------------------------------------------------------------- registry


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"gauss_newton"}))
def test_a_name_makes_its_target(name: str) -> None:
    target = make_target(name, period=3)
    assert isinstance(target, TARGETS[name])
    assert target.name == name
    assert target.period == 3


def test_an_instance_stays_itself_and_takes_a_period() -> None:
    target = Kronecker(retention=0.5)
    assert make_target(target) is target
    assert make_target(target, period=4) == replace(target, period=4)
    assert make_target(Kronecker(period=6)).period == 6


@pytest.mark.parametrize(("name", "near"), [("second_momnt", "second_moment"), ("Hessian", "hessian"), ("one", "ones")])
def test_an_unknown_name_is_met_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"unknown target '{name}': expected one of average_gradient,.*mean '{near}'"):
        make_target(name)


def test_a_name_like_no_other_gets_no_hint() -> None:
    with pytest.raises(ValueError, match="expected one of") as caught:
        make_target("qqqq")
    assert "mean" not in str(caught.value)


def test_gauss_newton_says_that_it_needs_sampled_labels() -> None:
    for make in (GaussNewton, lambda: make_target("gauss_newton")):
        with pytest.raises(ValueError, match=r"GaussNewton\(sampled_loss=.*batch_size"):
            make()
