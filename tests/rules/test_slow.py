"""The slow box: what the model holds against the two points of the print, weights and look-ahead, written by hand."""

from __future__ import annotations

import pytest
import torch

import nestlearn as nl
from nestlearn.rules import average, cautious, chain, ramp, slow, sum, with_lr

from .examples import composed, loop, stepped

SAME = {"rtol": 1e-12, "atol": 1e-12}
LR, W, G = 0.1, 0.6, 0.9


def assert_same(rule, write, **common):
    for ours, theirs in zip(stepped(composed(rule, **common)), loop(write), strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)


class TwoPoints:
    """The print: ``theta`` is moved, the gradient is taken at the point that ``seen`` makes of it."""

    def __init__(self, *, ahead: bool, displacements: bool, decay: float = 0.0) -> None:
        self.ahead, self.displacements, self.kept = ahead, displacements, 1 - LR * decay
        self.theta, self.box, self.momentum = None, 0.0, 0.0

    def slow_part(self):
        return W * self.box if self.displacements else -LR * W * self.box

    def write(self, seen, u, time):
        theta = seen if self.theta is None else self.theta
        self.momentum = 0.5 * self.momentum + u  # the base optimizer: momentum
        if self.ahead:
            torch.testing.assert_close(seen, theta + self.slow_part(), **SAME)
            after = self.kept * seen - LR * self.momentum
        else:
            after = self.kept * theta - LR * self.momentum + self.slow_part()
        new = after - theta if self.displacements else self.momentum
        self.box = G * self.box + (1 - G) * new
        self.theta = after
        return after + self.slow_part() if self.ahead else after


@pytest.mark.parametrize("of", ["answers", "displacements"])
@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_both_boxes_at_both_points(of, ahead, decay):
    print_ = TwoPoints(ahead=ahead, displacements=of == "displacements", decay=decay)
    rule = chain(sum(0.5), slow(G, W, of=of, ahead=ahead))
    assert_same(rule, print_.write, weight_decay=decay)


def test_without_a_base_rule_it_is_the_published_iteration():
    """x <- A(x + w m), m <- g m + (1 - g) (x_new - x_old), with A a gradient step at lr of any kind."""
    for lr in (LR, torch.tensor(LR, dtype=torch.float64)):
        x, m = None, 0.0

        def write(seen, u, time):
            nonlocal x, m
            before = seen if x is None else x
            x = seen - LR * u
            m = G * m + (1 - G) * (x - before)
            return x + W * m

        assert_same(slow(G, W, of="displacements"), write, lr=lr)


def test_the_way_of_the_weights_holds_what_decays_by_entry():
    theta, box = None, 0.0

    def write(seen, u, time):
        nonlocal theta, box
        before = seen if theta is None else theta
        theta = (1 - 0.05 * (u * seen > 0).double()) * seen - LR * u
        box = G * box + (1 - G) * (theta - before)
        return theta + W * box

    assert_same(chain(cautious(), slow(G, W, of="displacements")), write, weight_decay=0.5)


@pytest.mark.slow
def test_displacements_under_a_constant_gradient_grow_to_what_the_weight_allows():
    """A box of displacements is fed by itself: after long the step is 1 / (1 - w) lr, of answers (1 + w) lr."""
    for of, times in (("displacements", 1 / (1 - W)), ("answers", 1 + W)):
        weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        optimizer = nl.optim.Optimizer([weight], LR, element=slow(G, W, of=of))
        for _ in range(1000):
            before = weight.detach().clone()
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        torch.testing.assert_close(before - weight.detach(), torch.full_like(before, LR * times), rtol=1e-9, atol=0)


def test_at_a_rate_of_zero_nothing_moves():
    for lr in (0.0, torch.tensor(0.0, dtype=torch.float64)):
        path = stepped(composed(chain(average(0.9), slow(G, W, of="displacements")), lr=lr))
        assert all(torch.equal(weight, path[0]) for weight in path)


@pytest.mark.parametrize("weight", [1.0, 1.5, ramp(0.3, 1.0, writes=10), with_lr(2.0)])
def test_displacements_whose_box_would_grow_without_end_are_refused(weight):
    with pytest.raises(ValueError, match="so weight must be below 1, got"):
        slow(weight=weight, of="displacements")
    assert slow(weight=weight).weight == weight


def test_what_the_way_of_the_weights_is_for():
    rule = slow(of="displacements")
    with pytest.raises(ValueError, match="is for the weights"):
        nl.rules.deep(4, written_by=rule)
    with pytest.raises(ValueError, match="reads the weights"):
        nl.rules.every(3, rule)
    assert nl.rules.every(3, slow()) and nl.rules.deep(4, written_by=slow())
