"""Deep momentum and deep Adam: what they learn, what they are without memory, loops written by hand (O5-O8, O16)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl

TALL, WIDE = (6, 4), (4, 6)
ROWS, DIM = max(TALL), min(TALL)
EYE = torch.eye(DIM, dtype=torch.float64)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def updates(optimizer: torch.optim.Optimizer, weight: nn.Parameter, gradients: Tensor) -> list[Tensor]:
    """What is subtracted from the weights at each step; the optimizer has lr = 1."""
    found = []
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        found.append(before - weight.detach())
    return found


def deep(shape: tuple[int, ...], **settings: Any) -> tuple[nl.optim.DeepMomentum, nn.Parameter]:
    weight = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    return nl.optim.DeepMomentum([weight], lr=1.0, **settings), weight


def orthogonalised(matrix: Tensor) -> Tensor:
    left, values, right = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


def as_rows(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def unit(rows: Tensor) -> Tensor:
    """Rows scaled together to a mean squared length of one."""
    length = rows.square().sum(-1).mean().sqrt()
    return rows / length if length > 0 else rows


def answered(rows: Tensor, shape: tuple[int, int]) -> Tensor:
    """The memory's answer itself, as an update: entries of root mean square about 0.2."""
    return 0.2 * math.sqrt(DIM) * (rows if rows.shape == shape else rows.T)


# --------------------------------------------------------------------------------------------- what is learned


def stationary_surprises(steps: int, **settings: Any) -> list[float]:
    """The inner error on gradients from one distribution, whose columns differ in scale by a factor of ten."""
    optimizer, weight = deep((128, 16), skip_retention=0.0, hidden=64, **settings)
    scales = torch.logspace(-0.5, 0.5, 16, dtype=torch.float64)
    seen = []
    for _ in range(steps):
        weight.grad = draw(128, 16) * scales
        optimizer.step()
        seen.append(optimizer.surprise["momentum"].item())
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("levels", [1, 2])
def test_a_deep_memory_learns_a_target_that_it_can_learn(levels: int) -> None:
    """P = g / sqrt(v), a map that stays the same: the inner error falls under half of its start.

    Part of that fall is v's own, which knows little at first: the control, never written, shows how much.
    """
    seen = stationary_surprises(350, levels=levels, inner_lr=2.0)
    control = stationary_surprises(350, levels=levels, inner_lr=0.0)
    late = sum(seen[-50:]) / 50
    assert late < 0.5 * sum(seen[:10]) / 10
    assert late < 0.5 * sum(control[-50:]) / 50
    assert sum(control[-50:]) / 50 > 0.5 * sum(control[:10]) / 10


@pytest.mark.slow
def test_the_second_memory_learns_too() -> None:
    optimizer, weight = deep((128, 16), skip_retention=0.0, hidden=64, levels=2, inner_lr=2.0)
    scales, seen = torch.logspace(-0.5, 0.5, 16, dtype=torch.float64), []
    for _ in range(300):
        weight.grad = draw(128, 16) * scales
        optimizer.step()
        seen.append({name: value.item() for name, value in optimizer.surprise.items()})
    deeper = [name for name in seen[0] if name != "momentum"]
    assert deeper
    for name in deeper:
        # Its first gradient is zero where W_outer is zero: count from the second on.
        assert sum(s[name] for s in seen[-50:]) / 50 < 0.8 * sum(s[name] for s in seen[1:11]) / 10, name


# ---------------------------------------------------------------------------------------- degenerate cases


@pytest.mark.parametrize("shape", [TALL, WIDE, (6, 2, 2, 1)], ids=str)
def test_without_memory_it_is_the_read_out_of_the_gradient(shape: tuple[int, ...]) -> None:
    optimizer, weight = deep(shape, memory=False, skip_retention=0.0)
    gradients = draw(3, *shape)
    for found, gradient in zip(updates(optimizer, weight, gradients), gradients, strict=True):
        matrix = gradient.reshape(shape[0], -1)
        expected = 0.2 * math.sqrt(max(matrix.shape)) * orthogonalised(matrix)
        torch.testing.assert_close(found, expected.reshape(shape), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [TALL, WIDE], ids=str)
@pytest.mark.parametrize(
    "settings", [{"memory": False}, {"inner_lr": 0.0}, {"memory": "matrix", "inner_lr": 0.0}], ids=str
)
def test_a_silent_memory_with_identity_read_out_is_its_skip_path(
    settings: dict[str, Any], shape: tuple[int, int]
) -> None:
    """O5: a memory that knows nothing answers with the normalised average gradient."""
    optimizer, weight = deep(shape, skip_retention=0.7, readout="identity", **settings)
    gradients, mean = draw(8, *shape), torch.zeros(shape, dtype=torch.float64)
    for found, gradient in zip(updates(optimizer, weight, gradients), gradients, strict=True):
        mean = 0.7 * mean + 0.3 * gradient
        torch.testing.assert_close(found, answered(unit(as_rows(mean)), shape), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("levels", [1, 2])
def test_a_memory_starts_as_its_control(levels: int) -> None:
    """W_outer = 0 at the start; the first write moves it, so from there on the two differ."""
    gradients = draw(3, *TALL)
    one = updates(*deep(TALL, skip_retention=0.0, target="identity", levels=levels), gradients)
    two = updates(*deep(TALL, skip_retention=0.0, memory=False), gradients)
    torch.testing.assert_close(one[0], two[0])  # P is the skip path itself: nothing to learn
    other = updates(*deep(TALL, skip_retention=0.0, levels=levels, inner_lr=1.0), gradients)
    assert not torch.allclose(other[-1], two[-1])


@pytest.mark.parametrize("settings", [{}, {"levels": 3}, {"memory": "matrix"}, {"objective": "hypergradient"}], ids=str)
def test_a_zero_gradient_moves_nothing_even_after_learning(settings: dict[str, Any]) -> None:
    optimizer, weight = deep(TALL, skip_retention=0.0, readout="identity", retention=0.99, **settings)
    updates(optimizer, weight, draw(5, *TALL))
    (found,) = updates(optimizer, weight, torch.zeros(1, *TALL).double())
    assert not found.any()


# ------------------------------------------------------------------------------------- loops written by hand


@pytest.mark.parametrize("skip", [0.0, 0.6])
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=str)
def test_a_linear_memory_with_l2_is_the_delta_rule_on_rows(shape: tuple[int, int], skip: float) -> None:
    """W <- alpha W - zeta mean (W k - (P - skip)) k^T, written first, then skip + W k is the step."""
    alpha, zeta = 0.95, 0.4
    settings = {"memory": "matrix", "readout": "identity", "retention": alpha, "inner_lr": zeta, "skip_retention": skip}
    optimizer, weight = deep(shape, **settings)
    gradients = draw(15, *shape)
    memory, mean, square = torch.zeros(DIM, DIM).double(), torch.zeros(shape).double(), torch.zeros(shape).double()
    for time, found in enumerate(updates(optimizer, weight, gradients)):
        u = gradients[time]
        square, mean = 0.99 * square + 0.01 * u**2, skip * mean + (1 - skip) * u
        target = unit(as_rows(u / ((square / (1 - 0.99 ** (time + 1))).sqrt() + 1e-8)))
        key, around = unit(as_rows(u)), unit(as_rows(mean))
        error = key @ memory.T - (target - around)
        surprise = 0.5 * error.square().sum() / ROWS
        memory = alpha * memory - zeta * error.T @ key / ROWS
        torch.testing.assert_close(found, answered(around + key @ memory.T, shape), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(optimizer.surprise["momentum"], surprise)


def mlp_slopes(
    inner: Tensor, outer: Tensor, loss: Callable[[Callable[[Tensor], Tensor]], Tensor]
) -> tuple[Tensor, ...]:
    leaves = (inner.clone().requires_grad_(), outer.clone().requires_grad_())
    return torch.autograd.grad(loss(lambda key: mlp(leaves[0], leaves[1], key)), leaves)


def mlp(inner: Tensor, outer: Tensor, key: Tensor) -> Tensor:
    return nn.functional.silu(key @ inner.T) @ outer.T / math.sqrt(len(inner))


CASES: dict[str, dict[str, Any]] = {
    "second_moment": {},
    "next_gradient": {"target": "next_gradient"},
    "hypergradient": {"objective": "hypergradient"},
    "dmgd as printed": {"objective": "dot_product", "target": "ones"},
}


@pytest.mark.parametrize("skip", [0.0, 0.6])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=str)
def test_a_deep_memory_is_its_equations_under_autograd(shape: tuple[int, int], case: str, skip: float) -> None:
    """O5, O17: the MLP's own weights followed by hand, its inner loss differentiated by autograd."""
    alpha, zeta = 0.97, 0.5
    settings = {"hidden": 5, "retention": alpha, "inner_lr": zeta, "skip_retention": skip, "readout": "identity"}
    optimizer, weight = deep(shape, **settings, **CASES[case], seed=3)
    start = optimizer.fresh_state(weight, optimizer.param_groups[0])
    inner, outer = start["momentum.model.inner"].clone(), start["momentum.model.outer"].clone()
    gradients = draw(12, *shape)
    square, mean = torch.zeros(shape).double(), torch.zeros(shape).double()
    past = past_around = torch.zeros(ROWS, DIM).double()
    for time, found in enumerate(updates(optimizer, weight, gradients)):
        u = gradients[time]
        square, mean = 0.99 * square + 0.01 * u**2, skip * mean + (1 - skip) * u
        target = unit(as_rows(u / ((square / (1 - 0.99 ** (time + 1))).sqrt() + 1e-8)))
        seen = (unit(as_rows(u)), unit(as_rows(mean)), past, past_around, target)
        slopes = mlp_slopes(inner, outer, lambda read, seen=seen: inner_loss(case, read, *seen))
        inner, outer = alpha * inner - zeta * slopes[0], alpha * outer - zeta * slopes[1]
        key, around, *_ = seen
        torch.testing.assert_close(found, answered(around + mlp(inner, outer, key), shape), rtol=1e-8, atol=1e-8)
        past, past_around = key, around
    assert outer.abs().max() > 1e-3, "nothing was learned, so nothing was compared"


def inner_loss(
    case: str,
    read: Callable[[Tensor], Tensor],
    key: Tensor,
    around: Tensor,
    past: Tensor,
    past_around: Tensor,
    p: Tensor,
) -> Tensor:
    """What the memory is judged by; ``around`` is the skip path that its answer is added to."""
    if case == "second_moment":
        return 0.5 * (around + read(key) - p).square().sum() / ROWS
    if case == "next_gradient":  # this gradient is what the whole answer to the last one should have been
        return 0.5 * (past_around + read(past) - key).square().sum() / ROWS
    if case == "hypergradient":  # the answer is subtracted: it should agree with this gradient, seen after the step
        return -(read(past) * key).sum() / ROWS
    return -(read(key) * unit(torch.ones_like(key))).sum() / ROWS


def test_a_target_period_shows_a_pair_now_and_then() -> None:
    optimizer, weight = deep(TALL, target_period=3)
    seen = []
    for gradient in draw(7, *TALL):
        weight.grad = gradient
        optimizer.step()
        seen.append(optimizer.state[weight]["momentum.model.outer"].clone())
    assert [time for time in range(1, 7) if not torch.equal(seen[time], seen[time - 1])] == [3, 6]
    assert seen[0].any()


# -------------------------------------------------------------------------------------------------- levels


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_levels_nest_as_many_mlp_memories(levels: int) -> None:
    """Level k + 1 holds one memory for each of the two weight matrices of every memory that it writes."""
    optimizer, weight = deep(TALL, levels=levels)
    updates(optimizer, weight, draw(3, *TALL))
    names = [name for name in optimizer.state[weight] if name.endswith("momentum.model.inner")]
    depths = [name.count("momentum.") for name in names]
    assert [depths.count(level + 1) for level in range(levels)] == [2**level for level in range(levels)]
    assert max(depths) == levels
    assert all(optimizer.state[weight][name.replace("inner", "outer", -1)].any() for name in names if depths == [1])
    assert all(isinstance(tensor, Tensor) for tensor in optimizer.state[weight].values())
    assert set(optimizer.surprise) == {name.removesuffix(".model.inner") for name in names}


def test_the_second_level_keeps_the_length_of_the_gradient_it_is_given() -> None:
    """O6: a writer that knows nothing is gradient descent, one that has learned turns the step, at its length."""
    gradients = draw(2, *TALL)
    states = []
    for levels in (1, 2):
        optimizer, weight = deep(TALL, levels=levels, skip_retention=0.0, retention=1.0, inner_lr=0.5)
        updates(optimizer, weight, gradients[:1])
        states.append({name: t.clone() for name, t in optimizer.state[weight].items()})
    shallow, nested = (state["momentum.model.outer"] for state in states)
    # The first write of W_outer starts from zero: its length is inner_lr times the gradient's.
    torch.testing.assert_close(nested.norm(), shallow.norm())
    assert not torch.allclose(nested, shallow)


# ----------------------------------------------------------------------------- the quadratic model (O16)


def rotated_quadratic(size: int = 64, condition: float = 1000.0) -> tuple[Tensor, Tensor]:
    """Hessian [n, n], eigenvalues from 1 down to 1 / condition in a random basis; starting points as rows [n, n]."""
    basis = torch.linalg.qr(draw(size, size))[0]
    eigenvalues = torch.logspace(0, -math.log10(condition), size, dtype=torch.float64)
    return basis @ torch.diag(eigenvalues) @ basis.T, draw(size, size)


def value(hessian: Tensor, weight: Tensor) -> Tensor:
    """Every row is a point of the same quadratic."""
    return 0.5 * ((weight @ hessian) * weight).sum()


def momentum_reaches(hessian: Tensor, weight: Tensor, lr: float, retention: float, steps: int) -> float:
    optimizer = torch.optim.SGD([parameter := nn.Parameter(weight.clone())], lr=lr, momentum=retention)
    for _ in range(steps):
        parameter.grad = parameter.detach() @ hessian
        optimizer.step()
    return value(hessian, parameter.detach()).item()


def memory_reaches(hessian: Tensor, weight: Tensor, steps: int, **settings: Any) -> float:
    parameter = nn.Parameter(weight.clone())
    optimizer = nl.optim.DeepMomentum([parameter], objective="quadratic", readout="identity", **settings)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = value(hessian, parameter)
        loss.backward(retain_graph=True)
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return value(hessian, parameter.detach()).item()


@pytest.mark.slow
def test_a_memory_with_the_quadratic_model_leaves_tuned_momentum_far_behind() -> None:
    """O16 on a rotated quadratic, n = 64, condition 1000, 600 steps: at least a million times lower."""
    hessian, start = rotated_quadratic()
    grid = itertools.product((2.5, 3.0, 3.4, 3.7), (0.86, 0.88, 0.9, 0.92))
    best = min(momentum_reaches(hessian, start, lr, retention, 600) for lr, retention in grid)
    ours = memory_reaches(hessian, start, 600, lr=1.0, memory="matrix", inner_lr=4.0, retention=1.0)
    assert best < 1e-15 * value(hessian, start).item(), "the grid did not tune momentum"
    assert ours < 1e-6 * best


@pytest.mark.parametrize("shape", [TALL, WIDE], ids=str)
def test_the_quadratic_model_is_trained_on_hessian_products(shape: tuple[int, int]) -> None:
    """q(d) = -<u, d> + 1/2 <d, H d> / rows at d = k + W k, u of unit length: a loop by hand, H a full Hessian."""
    entries = shape[0] * shape[1]
    root = draw(entries, entries)
    hessian = root @ root.T / entries + 0.1 * torch.eye(entries, dtype=torch.float64)
    weight, zeta, lr = nn.Parameter(draw(*shape)), 0.3, 0.4
    optimizer = nl.optim.DeepMomentum(
        [weight], lr=lr, memory="matrix", objective="quadratic", readout="identity", inner_lr=zeta, retention=0.98
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 0.5 * weight.flatten() @ hessian @ weight.flatten()
        loss.backward(retain_graph=True)
        return loss

    point, memory = weight.detach().clone(), torch.zeros(DIM, DIM, dtype=torch.float64)
    for _ in range(10):
        u = (hessian @ point.flatten()).view(shape)
        key, length = unit(as_rows(u)), as_rows(u).square().sum(-1).mean().sqrt()
        answer = key + key @ memory.T
        product = as_rows((hessian @ back(answer, shape).flatten()).view(shape))
        memory = 0.98 * memory - zeta * (product - key).T @ key / ROWS
        point = point - lr * length * back(key + key @ memory.T, shape)
        optimizer.step(closure)
        torch.testing.assert_close(weight.detach(), point, rtol=1e-9, atol=1e-9)


def back(rows: Tensor, shape: tuple[int, int]) -> Tensor:
    return rows if rows.shape == shape else rows.T


def test_the_quadratic_memory_learns_newtons_direction() -> None:
    """Asked at one point again and again, d approaches H^-1 u, and the step lands in the minimum."""
    hessian, _ = rotated_quadratic(4, 10.0)
    point = torch.linalg.qr(draw(6, 4))[0] @ torch.linalg.inv(hessian)  # its gradient has orthogonal columns
    weight = nn.Parameter(point.clone())
    optimizer = nl.optim.DeepMomentum(
        [weight], lr=1.0, memory="matrix", objective="quadratic", readout="identity", inner_lr=4.0, retention=1.0
    )

    def closure() -> Tensor:
        with torch.no_grad():
            weight.copy_(point)
        optimizer.zero_grad()
        loss = value(hessian, weight)
        loss.backward(retain_graph=True)
        return loss

    optimizer.step(closure)
    assert weight.detach().norm() > 0.1 * point.norm()  # it has to be learned
    for _ in range(300):
        optimizer.step(closure)
    torch.testing.assert_close(weight.detach(), torch.zeros(6, 4).double(), rtol=0, atol=1e-9)


def test_the_quadratic_model_climbs_when_asked_to() -> None:
    """maximize turns gradient and curvature: the way up a hill is the way down its mirror image."""
    hessian, start = rotated_quadratic(4, 10.0)
    ends = []
    for sign in (1.0, -1.0):
        weight = nn.Parameter(start.clone())
        optimizer = nl.optim.DeepMomentum(
            [weight], lr=0.3, objective="quadratic", memory="matrix", readout="identity", maximize=sign < 0
        )

        def closure(sign: float = sign, weight: nn.Parameter = weight, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = sign * value(hessian, weight)
            loss.backward(retain_graph=True)
            return loss

        for _ in range(5):
            optimizer.step(closure)
        ends.append(weight.detach().clone())
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)


def test_the_quadratic_model_asks_for_its_closure() -> None:
    weight = nn.Parameter(draw(4, 4))
    optimizer = nl.optim.DeepMomentum([weight], objective="quadratic")
    weight.grad = draw(4, 4)
    with pytest.raises(RuntimeError, match=r"(?s)no closure was given.*retain_graph=True"):
        optimizer.step()


# ----------------------------------------------------------------------------------------------- deep Adam


def adam_paths(gradients: Tensor, **settings: Any) -> tuple[list[Tensor], list[Tensor]]:
    start, found = draw(*gradients.shape[1:]), []
    common = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}
    for make in (lambda p: nl.optim.DeepAdam([p], **common, **settings), lambda p: torch.optim.AdamW([p], **common)):
        weight, path = nn.Parameter(start.clone()), []
        optimizer = make(weight)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
            path.append(weight.detach().clone())
        found.append(path)
    return found[0], found[1]


def test_deep_adam_without_memory_is_adamw() -> None:
    for ours, theirs in zip(*adam_paths(draw(20, *TALL), memory=False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [TALL, WIDE], ids=str)
def test_deep_adam_starts_as_adam_and_leaves_it(shape: tuple[int, int]) -> None:
    """Its memories are zero until they have seen how one gradient follows another."""
    ours, theirs = adam_paths(draw(8, *shape), inner_lr=0.5)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(ours[-1], theirs[-1])


@pytest.mark.parametrize("shape", [TALL, WIDE], ids=str)
def test_deep_adam_is_its_equations_under_autograd(shape: tuple[int, int]) -> None:
    """O8: M(u) = m + sqrt(v) MLP_M(u), V(u) = v max(1 + MLP_V(u), 0.1), both regress on what followed the last key."""
    alpha, zeta, first, second, eps = 0.97, 5.0, 0.8, 0.99, 1e-6
    settings = {"hidden": 5, "inner_lr": zeta, "retention": alpha, "betas": (first, second), "eps": eps}
    weight = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = nl.optim.DeepAdam([weight], lr=1.0, **settings)
    start = optimizer.fresh_state(weight, optimizer.param_groups[0])
    parts = {
        name: [start[f"{name}.model.inner"].clone(), start[f"{name}.model.outer"].clone()]
        for name in ("momentum", "second_moment")
    }
    gradients = draw(16, *shape)
    gradients[13] *= 50  # squares have heavy tails, and a ceiling
    m, v, past = torch.zeros(shape).double(), torch.zeros(shape).double(), torch.zeros(ROWS, DIM).double()
    least, most = math.inf, 0.0
    for time, found in enumerate(updates(optimizer, weight, gradients)):
        u = gradients[time]
        m, v = first * m + (1 - first) * u, second * v + (1 - second) * u**2
        m_hat, v_hat = m / (1 - first ** (time + 1)), v / (1 - second ** (time + 1))
        values = {"momentum": (u - m_hat) / v_hat.sqrt(), "second_moment": (u**2 / v_hat).clamp(max=10) - 1}
        most = max(most, (u**2 / v_hat).max().item())
        key, answers = unit(as_rows(u)), {}
        for name, (inner, outer) in parts.items():
            wanted = as_rows(values[name]) / math.sqrt(DIM)
            slopes = mlp_slopes(inner, outer, lambda read, w=wanted, k=past: 0.5 * (read(k) - w).square().sum() / ROWS)
            parts[name] = [alpha * inner - zeta * slopes[0], alpha * outer - zeta * slopes[1]]
            answers[name] = back(math.sqrt(DIM) * mlp(*parts[name], key), shape)
        least = min(least, 1 + answers["second_moment"].min().item())
        share = (1 + answers["second_moment"]).clamp(min=0.1)
        expected = (m_hat + v_hat.sqrt() * answers["momentum"]) / ((v_hat * share).sqrt() + eps)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
        past = key
    assert least < 0.1, "V's answer never met its floor"
    assert most > 10, "no square met its ceiling"
