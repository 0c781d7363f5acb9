"""Momenta that are more than a box: preconditioned, delta, with feature maps and read-outs (O3, O4, O10, O11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.memory import Context
from nestlearn.rules.forget import ForgetAlongKey

STEPS = 20


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def walk(optimizer: torch.optim.Optimizer, weight: nn.Parameter, gradients: Tensor) -> Tensor:
    """The weights [time, ...] after each step along given gradients."""
    path = []
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        path.append(weight.detach().clone())
    return torch.stack(path)


def check(
    cls: type,
    settings: dict[str, Any],
    update: Callable[[Tensor, dict[str, Any]], Tensor],
    shape: tuple[int, ...],
    tolerance: float = 1e-10,
) -> None:
    weight, gradients = nn.Parameter(draw(*shape)), draw(STEPS, *shape)
    expected, state = weight.detach().clone(), {}
    path = walk(cls([weight], lr=0.1, **settings), weight, gradients)
    for found, gradient in zip(path, gradients, strict=True):
        expected = expected - 0.1 * update(gradient, state)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------------------------ delta momentum


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 3, 2, 2), (1, 5), (5, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("literal", [False, True])
def test_delta_momentum_forgets_along_the_rows_of_the_gradient(literal: bool, shape: tuple[int, ...]) -> None:
    """O4: M <- M (alpha I - zeta k^T k) + u."""

    def update(gradient: Tensor, state: dict[str, Any]) -> Tensor:
        u = gradient.reshape(gradient.shape[0], -1)
        k = u if literal else u / u.norm()
        eye = torch.eye(u.shape[1], dtype=u.dtype)
        state["m"] = state.get("m", torch.zeros_like(u)) @ (0.8 * eye - 0.05 * k.T @ k) + u
        return state["m"].reshape(gradient.shape)

    check(nl.optim.DeltaMomentum, {"retention": 0.8, "inner_lr": 0.05, "literal": literal}, update, shape)


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("shape", [(6,), ()], ids=["vector", "scalar"])
def test_delta_momentum_of_vectors_forgets_entry_by_entry(shape: tuple[int, ...], literal: bool) -> None:
    def update(u: Tensor, state: dict[str, Any]) -> Tensor:
        share = 0.3 * u**2 if literal else 0.3 * u**2 / (1 + 0.3 * u**2)
        state["m"] = state.get("m", torch.zeros_like(u)) * (0.8 - share) + u
        return state["m"]

    check(nl.optim.DeltaMomentum, {"retention": 0.8, "inner_lr": 0.3, "literal": literal}, update, shape)


@pytest.mark.parametrize("shape", [(4, 4), (6,)], ids=["matrix", "vector"])
def test_as_printed_it_diverges_with_large_gradients_and_by_default_it_does_not(shape: tuple[int, ...]) -> None:
    """Once zeta ||u||^2 > 2 the printed factor is beyond -1; O4's line says so, and so does the default."""
    gradients = (10 * torch.ones(shape, dtype=torch.float64)).expand(30, *shape)
    sizes = {}
    for literal in (False, True):
        weight = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        optimizer = nl.optim.DeltaMomentum([weight], lr=0.1, retention=0.9, inner_lr=0.5, literal=literal)
        sizes[literal] = walk(optimizer, weight, gradients)[-1].abs().max().item()
    assert sizes[False] < 0.1 * 30 * 100
    assert sizes[True] > 1e20


def test_a_direction_that_keeps_coming_back_piles_up_less() -> None:
    """What delta momentum is for: with the same gradient again and again it stays below plain momentum."""
    gradients = draw(4, 4).expand(40, 4, 4)
    reached = {}
    for inner_lr in (0.0, 0.5):
        weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.float64))
        optimizer = nl.optim.DeltaMomentum([weight], lr=0.1, retention=0.9, inner_lr=inner_lr)
        reached[inner_lr] = walk(optimizer, weight, gradients)[-1].norm()
    assert reached[0.5] < 0.6 * reached[0.0]


# ------------------------------------------------------------------------------------------ preconditioners


@pytest.mark.parametrize("shape", [(3, 5), (6,)], ids=["matrix", "vector"])
def test_preconditioned_momentum_sums_gradients_over_their_root_mean_square(shape: tuple[int, ...]) -> None:
    """O3: M <- alpha M + u / (sqrt(v) + eps), v the bias-corrected mean square."""

    def update(u: Tensor, state: dict[str, Any]) -> Tensor:
        state["t"] = state.get("t", 0) + 1
        state["v"] = 0.99 * state.get("v", torch.zeros_like(u)) + 0.01 * u**2
        target = u / ((state["v"] / (1 - 0.99 ** state["t"])).sqrt() + 1e-8)
        state["m"] = 0.8 * state.get("m", torch.zeros_like(u)) + target
        return state["m"]

    check(nl.optim.PreconditionedMomentum, {"retention": 0.8}, update, shape)


def test_preconditioned_by_the_identity_it_is_momentum() -> None:
    gradients, start = draw(STEPS, 3, 4), draw(3, 4)
    paths = []
    for cls, settings in ((nl.optim.PreconditionedMomentum, {"target": "identity"}), (nl.optim.Momentum, {})):
        weight = nn.Parameter(start.clone())
        paths.append(walk(cls([weight], lr=0.1, retention=0.7, **settings), weight, gradients))
    torch.testing.assert_close(*paths, rtol=1e-12, atol=1e-12)


def test_vectors_under_a_target_for_matrices_have_the_second_moment() -> None:
    start, gradients = draw(6), draw(STEPS, 6)
    paths = []
    for target in ("kronecker", "second_moment"):
        weight = nn.Parameter(start.clone())
        paths.append(walk(nl.optim.PreconditionedMomentum([weight], lr=0.1, target=target), weight, gradients))
    assert torch.equal(*paths)


@pytest.mark.parametrize("target", ["kronecker", nl.targets.Kronecker(retention=0.5, damping=0.1)], ids=["name", "own"])
def test_targets_come_by_name_or_as_they_are(target: Any) -> None:
    settings = nl.targets.Kronecker() if isinstance(target, str) else target

    def root(matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ torch.diag((values.clamp(min=0) + settings.damping * values[-1]) ** -0.25) @ vectors.T

    def update(u: Tensor, state: dict[str, Any]) -> Tensor:
        kept, new = settings.retention, 1 - settings.retention
        if state.setdefault("t", 0) % 4 == 0:
            state["l"] = kept * state.get("l", torch.zeros(3, 3).double()) + new * u @ u.T
            state["r"] = kept * state.get("r", torch.zeros(5, 5).double()) + new * u.T @ u
        state["t"] += 1
        state["m"] = 0.8 * state.get("m", torch.zeros_like(u)) + root(state["l"]) @ u @ root(state["r"])
        return state["m"]

    arguments = {"retention": 0.8, "target": target, "target_period": 4}
    # Along directions that no gradient had yet a ridge of 1e-6 leaves a million times the rounding of the processor.
    check(nl.optim.PreconditionedMomentum, arguments, update, (3, 5), tolerance=1e-8)


def test_a_forecast_cannot_precondition() -> None:
    with pytest.raises(ValueError, match="'next_gradient' is known one step late"):
        nl.optim.PreconditionedMomentum([nn.Parameter(draw(2, 2))], target="next_gradient")


# ------------------------------------------------------------------------------- feature maps and read-outs


def test_a_feature_map_takes_the_place_of_the_gradient() -> None:
    """O11: M <- alpha M + phi(u)."""

    def update(u: Tensor, state: dict[str, Any]) -> Tensor:
        state["m"] = 0.7 * state.get("m", torch.zeros_like(u)) + nl.targets.random_features(u)
        return state["m"]

    check(nl.optim.Momentum, {"retention": 0.7, "feature_map": "random_features"}, update, (3, 5))


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_newton_schulz_read_out_has_singular_values_near_one(nesterov: bool) -> None:
    """O10, unscaled, the iteration written on singular values."""

    def update(u: Tensor, state: dict[str, Any]) -> Tensor:
        state["m"] = 0.7 * state.get("m", torch.zeros_like(u)) + u
        seen = u + 0.7 * state["m"] if nesterov else state["m"]
        left, values, right = torch.linalg.svd(seen / seen.norm(), full_matrices=False)
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        return left @ torch.diag(values) @ right

    check(nl.optim.Momentum, {"retention": 0.7, "nesterov": nesterov, "readout": "newton_schulz"}, update, (3, 5))


@pytest.mark.parametrize("settings", [{"readout": "newton_schulz"}, {"feature_map": "random_features"}], ids=str)
def test_vectors_beside_a_rule_for_matrices_have_adam(settings: dict[str, Any]) -> None:
    start, gradients = draw(6), draw(STEPS, 6)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    torch.testing.assert_close(
        walk(nl.optim.Momentum([ours], lr=0.1, **settings), ours, gradients),
        walk(torch.optim.Adam([theirs], lr=0.1), theirs, gradients),
        rtol=1e-10,
        atol=1e-10,
    )


def test_the_forgetting_rule_reads_its_memory() -> None:
    with pytest.raises(ValueError, match="memory's parameters and key"):
        ForgetAlongKey().update({}, {"value": draw(2, 2)}, Context())


def test_forgetting_along_a_key_is_bounded_unless_it_is_asked_to_be_literal():
    memory, key = torch.ones(2, 3), torch.full((2, 3), 100.0)
    context = nl.memory.Context(parameters={"value": memory}, key=key)
    for rule, bounded in ((ForgetAlongKey(), True), (ForgetAlongKey(literal=True), False)):
        update, _ = rule.update({}, {"value": torch.zeros(2, 3)}, context)
        assert bool(update["value"].norm() <= memory.norm()) is bounded
