"""What a description of one's own parts needs to be executed, and what is refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from descriptions.replays import of_a_rule, replayed, through_json
from torch import nn

import nestlearn as nl
from nestlearn.descriptions import NestedSystem, rebuild
from nestlearn.memory import (
    MLP,
    AssociativeMemory,
    Constant,
    Consult,
    Consulted,
    GradientDescent,
    Matrix,
    Said,
    average_box,
    l2,
    sum_box,
)
from nestlearn.rules import Link, Linked, average, chain, deep, newton


@dataclass(frozen=True, repr=False)
class sign(Link):
    """The sign of an answer, in words or not."""

    words: str = "sign({a})"

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        words = self.words.format(a=a.words)
        return Linked(Said(words, lambda scene: a(scene).sign()))


def test_a_link_of_ones_own_is_rebuilt_where_its_words_are_an_expression():
    for weight, learned in replayed(of_a_rule(chain(average(0.9, nesterov=True), sign())), (5, 3)):
        torch.testing.assert_close(learned, weight, rtol=1e-12, atol=1e-12)


class Mine(nl.optim.Optimizer):
    """One consulted memory, whose answer is the update."""

    def __init__(self, memory: Consulted) -> None:
        self.memory = memory
        super().__init__([nn.Parameter(torch.ones(4, 3))], 0.1, {})

    def matrix_rule(self, group: dict[str, object]) -> Consult:
        answer = Said(self.memory.name, lambda scene: scene.answers[self.memory.name])
        return Consult(memories=lambda shape: (self.memory,), combine=answer)

    def element_rule(self, group: dict[str, object]) -> Link:
        return nl.rules.gradient()


class Diagonal(Matrix):
    """A model of one's own."""


@dataclass(frozen=True)
class LogCosh(nl.memory.Objective):
    name = "log_cosh"
    loss = error = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Adagrad(nl.memory.Rule):
    eps: float = 1e-10

    def update(self, state, gradients, context):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def linear(
    model: nl.memory.Model, objective: nl.memory.Objective = l2, rule: nl.memory.Rule | None = None
) -> Consulted:
    return Consulted("own", AssociativeMemory(model, objective, rule or GradientDescent(lr=0.1)))


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        (sum_box("own", 0.9, lambda scene: scene.gradient.sin()), "the value of 'own' is said in words alone: .*scene"),
        (sum_box("own", 0.9, Said("sin(u)", torch.sin)), "the value of 'own' is said in words alone: .*sin"),
        (sum_box("own", 0.9, Said("other", torch.sin)), "the value of 'own', 'other', mentions other, which"),
        (average_box("own", 0.9, period=2, keep_answer=lambda gradient: gradient), "the first_answer of 'own'"),
        (sum_box("own", 0.9, readout=lambda answer, scene: answer), "the readout of 'own' .*a function of M"),
        (sum_box("slow box", 0.9), "'slow box'"),
        (sum_box("lr", 0.9), "a memory is called lr, which means something else"),
        (sum_box("T", 0.9), "a memory is called T"),
        (sum_box("D", 0.9, Said("u + D", torch.sin, {"D": "W"})), "a memory is called D"),
        (linear(Diagonal(3, 3)), "the model 'Diagonal' is not one of the core's"),
        (linear(MLP(3, 4, 3, features=torch.ones(4, 3))), "the model 'MLP 3-4-3 . key with features' is not"),
        (linear(Matrix(3, 3), LogCosh()), "the objective 'log_cosh' is not one of the core's"),
        (linear(Matrix(3, 3), nl.memory.Quadratic(curvature=torch.sin)), "with a curvature of its own"),
        (linear(Matrix(3, 3), rule=Adagrad(lr=0.1)), "the rule 'adagrad, eps 1e-10' is not one of the core's"),
        (linear(Matrix(3, 3), rule=GradientDescent(lr=torch.ones(2))), "the lr of 'own' .* 'one a memory'"),
    ],
)
def test_what_nobody_has_said_is_refused_with_its_place(memory, reason):
    system = nl.describe(Mine(memory))
    with pytest.raises(ValueError, match=f"(?s)Mine cannot be rebuilt: .*{reason}"):
        rebuild(through_json(system))


def test_a_rule_without_words_is_refused():
    class Other(Mine):
        def matrix_rule(self, group):
            return replace(super().matrix_rule(group), combine=lambda scene: scene.gradient)

    with pytest.raises(ValueError, match=r"the update of 'weights' .* 'a combination of their answers'"):
        rebuild(nl.describe(Other(sum_box("own", 0.9))))


def test_a_target_without_words_is_refused():
    @dataclass(frozen=True)
    class Half(nl.targets.Target):
        def __call__(self, scene):
            return scene.gradient / 2

    system = nl.describe(nl.optim.PreconditionedMomentum([nn.Parameter(torch.ones(3))], target=Half()))
    with pytest.raises(ValueError, match="the value of 'momentum', 'P', mentions P"):
        rebuild(system)


@pytest.mark.parametrize(
    "rule",
    [
        GradientDescent(lr=0.1),
        nl.memory.DeltaGradientDescent(lr=0.1),
        nl.memory.DeltaGradientDescent(0.1, 1.0, True, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("model", [Matrix(3, 3, residual=True), MLP(3, 4, 3)], ids=str)
def test_rules_and_models_of_the_core_are_made_from_their_words(rule, model):
    def make(module: nn.Module) -> nl.optim.Optimizer:
        optimizer = Mine(linear(model, l2.averaged(), rule))
        optimizer.param_groups[0]["params"] = list(module.parameters())
        return optimizer

    for weight, learned in replayed(make, (4, 3)):
        torch.testing.assert_close(learned, weight, rtol=1e-9, atol=1e-12)


def test_descriptions_of_before_are_read():
    """Fields that came later have defaults: what torch's optimizers are described with did not need them."""
    data = nl.describe(torch.optim.Adam([nn.Parameter(torch.ones(2))])).to_dict()
    for memory in data["memories"]:
        for name in ("collects", "first_answer", "turn"):
            del memory[name]
    learner = rebuild(NestedSystem.from_dict(data))
    assert learner.write(learner.init(torch.ones(2)), torch.ones(2))["step"] == 1


def test_a_measurement_that_is_not_given_is_missed_by_its_name():
    optimizer = nl.optim.Optimizer([nn.Parameter(torch.ones(4, 3))], 0.1, matrix=newton(3))
    learner = rebuild(nl.describe(optimizer))
    with pytest.raises(KeyError, match="curvature_product"):
        learner.write(learner.init(torch.ones(4, 3)), torch.ones(4, 3))


def test_first_weights_come_from_the_generator():
    learner = rebuild(nl.describe(nl.optim.Optimizer([nn.Parameter(torch.ones(4, 3))], 0.1, matrix=deep(3))))
    states = [learner.init(torch.ones(4, 3), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    one, same, other = (state["weights"]["rule"]["value"]["deep"]["model"]["inner"] for state in states)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert Constant().init((2,))["value"].sum() == 0  # boxes draw nothing
