"""Links against torch, closed forms and loops written by hand."""

from __future__ import annotations

import sys

import pytest
import torch

import nestlearn as nl
from nestlearn import rules
from nestlearn.ops import cholesky_whitener, newton_schulz, symmetric_power
from nestlearn.rules import (
    adam,
    average,
    cautious,
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

from .examples import composed, loop, stepped

SAME = {"rtol": 1e-12, "atol": 1e-12}


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        (gradient(), lambda weights: torch.optim.SGD(weights, 0.1)),
        (sum(0.9), lambda weights: torch.optim.SGD(weights, 0.1, momentum=0.9)),
        (sum(0.9, nesterov=True), lambda weights: torch.optim.SGD(weights, 0.1, momentum=0.9, nesterov=True)),
        (adam((0.8, 0.95), 1e-6), lambda weights: torch.optim.Adam(weights, 0.1, (0.8, 0.95), 1e-6)),
        (sum_of_squares(eps=0.0), lambda weights: torch.optim.Adagrad(weights, 0.1, eps=0.0)),
        (sum_of_squares(under_root=False), lambda weights: torch.optim.Adagrad(weights, 0.1, eps=1e-8)),
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
    nl.optim.Optimizer([weight], 1.0, matrix=within(whiten(retention=0.0), orthogonal(scale="spectral"))).step()

    def normed(covariance):
        return covariance / covariance.diagonal().mean()

    inputs = cholesky_whitener(normed(u.T @ u), 0.1)
    errors = cholesky_whitener(normed(u @ u.T), 0.1)
    back = errors.T @ newton_schulz(errors @ u @ inputs.T) @ inputs
    expected = back / back.norm() * 3**0.5 * (4 / 3) ** 0.5
    torch.testing.assert_close(-weight.detach(), expected, rtol=1e-10, atol=1e-10)


def test_a_read_out_is_refreshed_from_memories_that_are_written_at_every_step():
    kept = {"left": 0.0, "right": 0.0, "roots": None, "m": 0.0}

    def normed(covariance):
        return covariance / covariance.diagonal().mean()

    def write(weight, u, time):
        kept["left"] = 0.9 * kept["left"] + 0.1 * normed(u @ u.T)
        kept["right"] = 0.9 * kept["right"] + 0.1 * normed(u.T @ u)
        if time % 3 == 0:
            kept["roots"] = symmetric_power(kept["left"], -0.25, 0.2), symmetric_power(kept["right"], -0.25, 0.2)
        left, right = kept["roots"]
        return weight - 0.1 * left @ u @ right

    rule = whiten("root", retention=0.9, damping=0.2, refresh=3)
    for ours, theirs in zip(stepped(composed(rule)), loop(write), strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)
    sampled = stepped(composed(whiten("root", retention=0.9, damping=0.2, period=3, refresh=3)))
    same = stepped(composed(whiten("root", retention=0.9, damping=0.2, period=3)))
    assert all(torch.equal(one, two) for one, two in zip(sampled, same, strict=True))
    assert not torch.allclose(sampled[-1], ours)


def test_one_side_alone_leaves_the_other_as_it_is():
    u = stepped(composed(gradient(), lr=0.0), steps=1)[0]
    both = {side: stepped(composed(whiten("root", power=-0.5, side=side)), steps=1)[0] for side in ("inputs", "errors")}
    assert not torch.allclose(both["inputs"], both["errors"]) and all(each.shape == u.shape for each in both.values())
    square = torch.nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
    square.grad = torch.randn(3, 3, dtype=torch.float64)
    nl.optim.Optimizer([square], 1.0, matrix=whiten("root", 0.0, power=-0.5, damping=0.0, side="errors")).step()
    rows = square.detach() @ square.detach().T
    torch.testing.assert_close(rows, rows[0, 0] * torch.eye(3, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("entries", [True, False])
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1, dtype=torch.float64)])
def test_a_cautious_rule_decays_where_the_step_shrinks_the_weight(entries, lr):
    def write(weight, u, time):
        return weight - 0.1 * 0.5 * (u * weight > 0).double() * weight - 0.1 * u

    where = {"element": cautious()} if entries else {"matrix": cautious()}
    make = lambda weights: nl.optim.Optimizer(weights, lr, weight_decay=0.5, **where)  # noqa: E731
    for ours, theirs in zip(stepped(make), loop(write), strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)


def test_who_decides_last_what_is_kept_knows_what_the_one_before_decided():
    twice = chain(cautious(), cautious(name="again"))
    pairs = zip(
        stepped(composed(twice, weight_decay=0.5)), stepped(composed(cautious(), weight_decay=0.5)), strict=True
    )
    assert all(torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("size", [(3,), (200, 300)])  # end to end, and walked in blocks
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_is_kept_is_an_input_of_every_lane(size, compiled):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(size, generator=generator)) for _ in range(2)]
    start = [weight.detach().clone() for weight in weights]
    rule = chain(sum(0.5), cautious())
    optimizer = nl.optim.Optimizer(weights, 0.1, element=rule, weight_decay=0.5, compile=compiled)
    boxes = [torch.zeros(size) for _ in weights]
    for _ in range(3):
        for weight, box, other in zip(weights, boxes, start, strict=True):
            weight.grad = torch.randn(size, generator=generator)
            box.mul_(0.5).add_(weight.grad)
            other.mul_(torch.where(box * other > 0, 0.95, 1.0)).sub_(0.1 * box)
        optimizer.step()
    for weight, other in zip(weights, start, strict=True):
        torch.testing.assert_close(weight.detach(), other, rtol=1e-5, atol=1e-6)


def longest(*answers):
    """For each entry the answer that is farthest from zero."""
    stacked = torch.stack(answers)
    return stacked.gather(0, stacked.abs().argmax(0, keepdim=True))[0]


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        ("mean", lambda a, b: (a + b) / 2),
        ("product", lambda a, b: a * b),
        (f"{__name__}:longest", longest),
    ],
)
def test_parallel_combines_by_name_or_by_a_function_of_ones_own(combine, expected, monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[longest.__module__])
    first, second = gradient(name="a"), sum(1.0, weight=0.25, name="b")
    rule = parallel(first, second, combine=combine)
    start = stepped(composed(gradient(), lr=0.0), steps=1)[0]
    (found,) = stepped(composed(rule, lr=1.0), steps=1)
    u = start - stepped(composed(gradient(), lr=1.0), steps=1)[0]
    torch.testing.assert_close(start - found, expected(u, 0.25 * u), **SAME)
    if ":" in combine:
        with pytest.raises(ValueError, match="imported only for a rule that you typed"):
            rules.from_data(rules.to_data(rule))
        assert rules.from_data(rules.to_data(rule), typed=True) == rule
        assert eval(repr(rule), vars(rules)) == rule


def test_a_member_may_ask_for_the_answer_of_one_before_it_by_its_name():
    from dataclasses import dataclass

    @dataclass(frozen=True, repr=False)
    class rest(rules.Link):
        """Answers what another link has left of a."""

        of: str = "fast"

        def link(self, shape, u, a):
            return rules.Linked(
                nl.memory.Said(f"{a.words} - {self.of}", lambda scene: a(scene) - scene.answer(self.of))
            )

    rule = parallel(chain(average(0.5), name="fast"), chain(rest(), name="slow"))
    for ours, theirs in zip(stepped(composed(rule)), stepped(composed(gradient())), strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)
    with pytest.raises(KeyError, match=r"no part of the rule is called 'fast': expected one of \['other'\]"):
        stepped(composed(parallel(average(0.5, name="other"), rest())))


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
