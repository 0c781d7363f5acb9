"""psi of [NL] Figure 4 against its closed form, and what O4's rule makes of a point of one row."""

import math

import pytest
import torch

import nestlearn as nl
from nestlearn.tasks import RavineTask

TASK = RavineTask(dtype=torch.float64)


def psi(r: float, t: float) -> float:
    return r**2 + TASK.steepness * (r - t + TASK.amplitude * math.sin(TASK.frequency * r)) ** 2


def slopes(r: float, t: float) -> list[float]:
    across = r - t + TASK.amplitude * math.sin(TASK.frequency * r)
    bend = 1 + TASK.amplitude * TASK.frequency * math.cos(TASK.frequency * r)
    return [2 * r + 2 * TASK.steepness * across * bend, -2 * TASK.steepness * across]


def test_seed_0_starts_where_the_paper_does_and_others_nearby():
    points = [TASK.build(seed).point().detach()[0] for seed in range(5)]
    assert points[0].tolist() == [-3.5, 2.0]
    assert all(0 < (point - points[0]).norm() < 6 * TASK.jitter for point in points[1:])
    assert RavineTask(jitter=0.0).build(3).point().tolist() == [[-3.5, 2.0]]


@pytest.mark.parametrize("point", [(-3.5, 2.0), (0.7, -0.2), (0.0, 0.0)])
def test_loss_and_gradient_are_the_closed_form(point):
    model = TASK.build(0)
    with torch.no_grad():
        model.layer.weight.copy_(torch.tensor([point], dtype=torch.float64) - model.start)
    loss = TASK.loss(model, ())
    loss.backward()
    assert loss.item() == pytest.approx(psi(*point), rel=1e-14)
    assert model.layer.weight.grad[0].tolist() == pytest.approx(slopes(*point), abs=1e-12)
    assert TASK.evaluate(model, "test") == pytest.approx({"loss": psi(*point), "distance": math.hypot(*point)})


def test_delta_momentum_acts_on_the_point_as_on_the_vector_of_the_paper():
    """O4 with the vector u as the key: M <- alpha M - zeta (M . k) k + u, k = u / ||u||."""
    model = TASK.build(0)
    optimizer = nl.optim.DeltaMomentum(model.parameters(), lr=0.01, retention=0.9, inner_lr=0.3)
    point, memory = torch.tensor([-3.5, 2.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for _ in range(30):
        u = torch.tensor(slopes(*point.tolist()), dtype=torch.float64)
        key = u / u.norm()
        memory = 0.9 * memory - 0.3 * (memory @ key) * key + u
        point = point - 0.01 * memory
        optimizer.zero_grad()
        TASK.loss(model, ()).backward()
        optimizer.step()
        torch.testing.assert_close(model.point().detach()[0], point, rtol=1e-9, atol=1e-9)


def test_weight_decay_pulls_back_to_the_start_and_not_into_the_solution():
    model = TASK.build(0)
    with torch.no_grad():
        model.layer.weight.copy_(torch.tensor([[3.0, -1.0]]))
        model.layer.weight.mul_(1e-9)
    assert TASK.evaluate(model, "test")["distance"] == pytest.approx(math.hypot(3.5, 2.0))
