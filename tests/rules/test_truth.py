"""Links against torch, closed forms and loops written by hand."""

from __future__ import annotations

import pytest
import torch

import nestlearn as nl
from nestlearn import rules
from nestlearn.ops import cholesky_whitener, newton_schulz
from nestlearn.rules import (
    adam,
    average,
    chain,
    every,
    gradient,
    muon,
    orthogonal,
    outer,
    parallel,
    second_moment,
    slow,
    sum,
    sum_of_squares,
    whiten,
    within,
)

from .examples import composed, stepped

SAME = {"rtol": 1e-12, "atol": 1e-12}


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        (gradient(), lambda weights: torch.optim.SGD(weights, 0.1)),
        (sum(0.9), lambda weights: torch.optim.SGD(weights, 0.1, momentum=0.9)),
        (sum(0.9, nesterov=True), lambda weights: torch.optim.SGD(weights, 0.1, momentum=0.9, nesterov=True)),
        (adam((0.8, 0.95), 1e-6), lambda weights: torch.optim.Adam(weights, 0.1, (0.8, 0.95), 1e-6)),
        (sum_of_squares(eps=0.0), lambda weights: torch.optim.Adagrad(weights, 0.1, eps=0.0)),
    ],
)
def test_element_rules_are_those_of_torch(rule, reference):
    for ours, theirs in zip(stepped(composed(rule)), stepped(reference), strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)


def test_a_corrected_average_over_a_root_is_adam_in_whatever_way_it_is_divided():
    both = chain(average(0.8, corrected=True), gradient(), second_moment(0.95, 1e-6))
    halves = chain(average(0.8, corrected=True), slow(weight=0.0), second_moment(0.95, 1e-6))
    for one, other in zip(stepped(composed(both)), stepped(composed(halves)), strict=True):
        torch.testing.assert_close(one, other, **SAME)


def loop(write, steps: int = 12):
    """``stepped`` with the step written by hand: ``write(weights, gradient, time)`` gives the new weights."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    path = []
    for time in range(steps):
        weight = write(weight, 0.5 * weight + torch.randn(4, 3, generator=generator, dtype=torch.float64), time)
        path.append(weight)
    return path


def test_every_sums_and_repeats():
    kept = {"sum": 0.0, "average": 0.0, "last": 0.0}

    def write(weight, u, time):
        kept["sum"] = kept["sum"] + u
        if (time + 1) % 4 == 0:
            kept["average"] = 0.5 * kept["average"] + 0.5 * kept["sum"]
            kept["last"], kept["sum"] = kept["average"], 0.0
        return weight - 0.1 * kept["last"]

    for ours, theirs in zip(stepped(composed(every(4, average(0.5)))), loop(write), strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_outer_writes_the_weights_from_how_far_they_have_moved(decay):
    """With decay too: what moves the weights between two outer writes is in the displacement, whatever it was."""
    kept = {"m": 0.0, "outer": 0.0, "start": None}

    def write(weight, u, time):
        kept["start"] = weight if time % 3 == 0 else kept["start"]
        kept["m"] = 0.9 * kept["m"] + 0.1 * u
        after = weight - 0.1 * kept["m"]
        if (time + 1) % 3 == 0:
            kept["outer"] = 0.7 * kept["outer"] + (kept["start"] - after)
            after = kept["start"] - kept["outer"]
        return after - 0.1 * decay * weight

    rule = chain(average(0.9), outer(3, sum(0.7)))
    for ours, theirs in zip(stepped(composed(rule, weight_decay=decay)), loop(write), strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)


def test_an_outer_level_that_takes_the_way_as_it_is_changes_nothing_and_rests_at_lr_zero():
    with_outer = stepped(composed(chain(average(0.9), outer(3, gradient()))))
    for ours, theirs in zip(with_outer, stepped(composed(average(0.9))), strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)
    idle = stepped(composed(chain(average(0.9), outer(3, sum(0.5))), lr=0.0))
    assert all(torch.equal(weight, idle[0]) for weight in idle)
    rate = torch.tensor(0.1, dtype=torch.float64)
    by_tensor = stepped(composed(chain(average(0.9), outer(3, gradient())), lr=rate))
    for ours, theirs in zip(by_tensor, with_outer, strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)


def test_within_goes_into_the_basis_and_comes_back_as_long_as_it_was():
    u = torch.randn(4, 3, dtype=torch.float64)
    weight = torch.nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
    weight.grad = u
    nl.optim.Optimizer([weight], 1.0, matrix=within(whiten(0.0, 0.1), orthogonal(scale="spectral"))).step()

    def normed(covariance):
        return covariance / covariance.diagonal().mean()

    inputs = cholesky_whitener(normed(u.T @ u), 0.1)
    errors = cholesky_whitener(normed(u @ u.T), 0.1)
    back = errors.T @ newton_schulz(errors @ u @ inputs.T) @ inputs
    expected = back / back.norm() * 3**0.5 * (4 / 3) ** 0.5
    torch.testing.assert_close(-weight.detach(), expected, rtol=1e-10, atol=1e-10)


def test_parallel_adds_what_its_members_answer():
    both = parallel(average(0.9, name="a"), chain(sum(0.5, name="b"), slow()), weights=(2.0, -0.5))
    one, other = (stepped(composed(rule), steps=1) for rule in (average(0.9), chain(sum(0.5), slow())))
    start = stepped(composed(gradient(), lr=0.0), steps=1)[0]
    (found,) = stepped(composed(both), steps=1)
    torch.testing.assert_close(found - start, 2 * (one[0] - start) - 0.5 * (other[0] - start), **SAME)


def test_muon_is_an_average_and_an_orthogonal_matrix():
    reference = stepped(lambda weights: nl.optim.Muon(weights, 0.1, retention=0.7))
    for rule in (muon(0.7), chain(average(0.7, nesterov=True), orthogonal())):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(stepped(composed(rule)), reference, strict=True))


def test_a_link_of_ones_own_is_a_few_lines():
    from dataclasses import dataclass

    @dataclass(frozen=True, repr=False)
    class sign(rules.Link):
        """Answers the sign of a."""

        def link(self, shape, u, a):
            return rules.Linked(nl.memory.Said(f"sign({a.words})", lambda scene: a(scene).sign()))

    def write(weight, u, time):
        return weight - 0.1 * u.sign()

    for ours, theirs in zip(stepped(composed(chain(sign()))), loop(write), strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)
    assert repr(chain(average(0.5), sign())) == "chain(average(0.5), sign())"
