"""Our optimizers come out of their descriptions again: weights after every step, from the words alone.

Words stand beside the functions they are of (``nestlearn.memory.Said``); here both compute the same. So a formula
whose words say something else fails, and so does one that the language of descriptions cannot say.
"""

from dataclasses import replace

import pytest
import torch
from contract.members import COLLECTING, EVERY, MEMBERS, Member
from descriptions.replays import Make, of_a_rule, replayed, through_json
from rules.examples import EVERY as RULES
from rules.examples import every_other
from torch import nn

import nestlearn as nl
from nestlearn.descriptions import NestedSystem, rebuild
from nestlearn.rules import (
    Link,
    adam,
    average,
    cautious,
    chain,
    deep,
    every,
    keep_length,
    newton,
    orthogonal,
    outer,
    parallel,
    scale,
    secant,
    second_moment,
    slow,
    sum,
    whiten,
    within,
)

TALL, WIDE, VECTOR = (5, 3), (3, 4), (7,)

UNSAID: dict[str, str] = {}
"""Members that cannot be rebuilt, and why. There are none."""

STRANGE: dict[str, Link] = {
    "a basis in a basis": within(
        whiten(retention=0.9, name="outer"), within(whiten("root", 0.8, name="inner"), average(0.9))
    ),
    "a length that only the answer has": within(whiten(retention=0.9, side="inputs"), chain(average(0.7), slow(0.9))),
    "two secants": parallel(secant(0.8, name="a"), secant(0.6, keys="displacement", nesterov=True, name="b")),
    "everything at its pace": chain(
        average(0.9, period=2, readout=orthogonal(3), name="slowest"),
        every(3, deep(3, period=2, written_by=chain(sum(0.5, nesterov=True), keep_length()))),
        outer(4, chain(average(0.5, corrected=True), scale("spectral", 2.0))),
    ),
    "what was slow before what is fast": parallel(
        deep(3, period=3, target="random_features", name="rare"),
        deep(4, target="kronecker", name="often"),
        chain(sum(0.5, weight=0.3), second_moment(0.9)),
    ),
    "a model of one's own": deep(
        model=nl.memory.MLP(3, 5, 3, activation="tanh"), target="random_features", beside=average(0.9)
    ),
    "curvature, seldom": chain(newton(3, period=2, written_by=adam()), second_moment(0.9, length_kept=True)),
    "a root that is seldom read": within(whiten("root", 0.9, refresh=3, side="errors"), sum(0.5)),
    "what is kept": chain(parallel(average(0.9, name="a"), sum(0.5, name="b"), combine="product"), cautious()),
    "answers in their mean": parallel(average(0.9), orthogonal(), combine="mean"),
    "a ladder": deep(3, written_by=deep(2, written_by=deep(2, written_by=average(0.9)), name="second"), name="first"),
}
"""Compositions that are harder to say than those of tests/rules: deep, slow, with names like each other's."""


def matrix_targets() -> list[str]:
    known = {name: kind for name, kind in nl.targets.TARGETS.items() if name != "gauss_newton"}
    return sorted(name for name, kind in known.items() if not kind.delayed)


SETTINGS = [
    *(Member("PreconditionedMomentum", {"target": target}, closure=True) for target in matrix_targets()),
    *(Member("DeepMomentum", {"hidden": 3, "target": target}, closure=True) for target in matrix_targets()),
    Member("PreconditionedMomentum", {"target": nl.targets.RandomFeatures(seed=3)}),
    Member("DeepMomentum", {"hidden": 3, "skip_retention": 0.0, "objective": "hypergradient"}),
    Member("DeepMomentum", {"hidden": 3, "skip_retention": 0.0, "target": "next_gradient", "levels": 2, "seed": 5}),
    Member("DeepMomentum", {"objective": "quadratic", "readout": "identity", "target_period": 2}, closure=True),
    Member("DeepMomentum", {"memory": False, "skip_retention": 0.0, "readout": "identity"}),
    Member("DeepAdam", {"hidden": 3, "levels": 2}),
    Member("Muon", {"readout": "memory"}),
    Member("Muon", {"steps": 3, "scale": "spectral"}),
    Member("Muon", {"elementwise_lr": 0.5}),
    Member("M3", {"slow_period": 3, "second_retention": 0.9}),
    Member("M3", {"slow_weight": 0}),
    Member("SecantMomentum", {"keys": "displacement", "nesterov": True, "rho": 0.5}),
    Member("SecantMomentum", {"keys": "all", "refresh": 3}, model=True),
    Member("LayerMomentum", {"refresh": 3}, model=True),
]
"""Settings of the named optimizers that the contract does not need and their words do."""


def assert_same(make: Make, shape: tuple[int, ...]) -> None:
    for time, (weight, learned) in enumerate(replayed(make, shape)):
        assert weight.isfinite().all()
        torch.testing.assert_close(learned, weight, rtol=1e-9, atol=1e-10, msg=f"step {time + 1}")


@pytest.mark.parametrize(**EVERY)
@pytest.mark.parametrize("shape", [TALL, pytest.param(VECTOR, marks=pytest.mark.slow)], ids=str)
def test_the_description_alone_replays_20_steps(member, shape):
    if str(member) not in UNSAID:
        assert_same(member.build, shape)


@pytest.mark.parametrize(**COLLECTING)
@pytest.mark.parametrize("shape", [WIDE, pytest.param(VECTOR, marks=pytest.mark.slow)], ids=str)
def test_periods_signs_and_decay_are_replayed(member, shape):
    assert_same(lambda module: member.build(module, period=3, maximize=True, weight_decay=0.1, lr=0.02), shape)


@pytest.mark.slow
@pytest.mark.parametrize("member", SETTINGS, ids=str)
def test_every_setting_is_replayed(member):
    assert_same(member.build, TALL)


def test_labels_that_a_model_draws_are_a_measurement_like_others():
    def make(module: nn.Module) -> nl.optim.Optimizer:
        drawn = nl.targets.GaussNewton(sampled_loss=lambda: module(torch.randn(8, 3).double()).square().mean())
        return nl.optim.PreconditionedMomentum(module.parameters(), target=drawn, target_period=2)

    assert_same(make, TALL)


def test_the_rate_of_vectors_is_their_own():
    """``lr`` in an expression is the rate of the write, whatever setting of the group it comes from."""
    rule = chain(average(0.8), outer(3, sum(0.5)))
    assert_same(
        lambda module: nl.optim.Optimizer(module.parameters(), 0.1, matrix=rule, element=rule, elementwise_lr=0.02),
        VECTOR,
    )


@pytest.mark.parametrize("name", every_other(RULES))
@pytest.mark.parametrize("shape", [TALL, pytest.param(WIDE, marks=pytest.mark.slow)], ids=str)
def test_composed_rules_are_replayed(name, shape):
    assert_same(of_a_rule(RULES[name]), shape)


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("shape", [TALL, pytest.param((3, 3), marks=pytest.mark.slow)], ids=str)
def test_what_is_hard_to_say_is_replayed(name, shape):
    assert_same(of_a_rule(STRANGE[name], weight_decay=0.3), shape)


def test_every_exception_has_a_reason_and_is_a_member():
    assert set(UNSAID) <= set(map(str, MEMBERS)) and all(UNSAID.values())


def test_the_learner_of_one_matrix_serves_matrices_of_other_shapes():
    """A description speaks of the roles, not of sizes: each parameter has memories of its own width."""
    wide, tall = (nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((2, 6), (4, 3)))
    optimizer = nl.optim.DeepMomentum([wide, tall], hidden=3, target="kronecker", levels=2)
    learner = rebuild(through_json(nl.describe(optimizer)))
    states = [learner.init(each, torch.Generator().manual_seed(0)) for each in (wide, tall)]
    for _ in range(3):
        for place, each in enumerate((wide, tall)):
            each.grad = torch.randn_like(each)
            states[place] = learner.write(states[place], each.grad)
        optimizer.step()
    for state, each in zip(states, (wide, tall), strict=True):
        torch.testing.assert_close(state["weights"]["model"]["value"], each.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "name", "item", "other"),
    [
        (nl.optim.Momentum, "momentum", "retention", "0.8"),
        (nl.optim.Momentum, "momentum", "value", "-u"),
        (nl.optim.Adam, "momentum", "fresh", False),
        (nl.optim.DeepMomentum, "momentum", "objective", "l2"),
        (nl.optim.DeepMomentum, "momentum", "model", "tanh MLP 3-64-3"),
        (nl.optim.DeepMomentum, "momentum", "query", "unit_rows(skip)"),
        (lambda params: nl.optim.M3(params, slow_period=3), "slow", "collects", False),
        (lambda params: nl.optim.M3(params, slow_period=3), "slow", "first_answer", "1"),
        (nl.optim.SecantMomentum, "secant", "rule", "least squares, discount 0.5, ridge 0.01"),
        (nl.optim.DeltaMomentum, "momentum", "update", "u"),
    ],
)
def test_a_word_that_is_wrong_is_noticed(make, name, item, other):
    def change(system: NestedSystem) -> NestedSystem:
        changed = [replace(each, **{item: other}) if each.name == name else each for each in system.memories]
        assert changed != list(system.memories)
        return replace(through_json(system), memories=tuple(changed))

    pairs = replayed(lambda module: make(module.parameters()), TALL, change)
    assert max((learned - weight).abs().max().item() for weight, learned in pairs) > 1e-6


def test_a_turn_that_is_wrong_is_noticed():
    """What is consulted later may mention what was consulted before, not the reverse."""
    system = nl.describe(nl.optim.PreconditionedMomentum([nn.Parameter(torch.ones(3))]))
    swapped = [replace(memory, turn=-memory.turn) for memory in system.memories]
    learner = rebuild(replace(system, memories=tuple(swapped)))
    with pytest.raises(KeyError, match="second_moment"):
        learner.write(learner.init(torch.ones(3)), torch.ones(3))
