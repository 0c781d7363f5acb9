"""A partition: different rules for different parameters, in groups of their own."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import nestlearn as nl
from nestlearn import rules
from nestlearn.rules import adam, average, chain, from_data, gradient, muon, part, partition, sum, to_data


class Reader(nn.Module):
    """An embedding, two matrices of which one is a head, and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 6)
        self.head = nn.Linear(6, 5, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.tokens(tokens)).tanh())


RULE = partition(
    part(adam(), table=True, lr=0.05, name="tables"),
    part(sum(0.5), names="*head*", weight_decay=0.1),
    part(muon(0.9), shape=(6, None)),
)


def trained(optimizer: torch.optim.Optimizer, model: Reader, steps: int = 4) -> list[torch.Tensor]:
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(torch.arange(7)).square().mean() + model(torch.arange(step, step + 2)).sum()
        loss.backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def readers(count: int = 2) -> list[Reader]:
    models = []
    for _ in range(count):
        torch.manual_seed(0)
        models.append(Reader().double())
    return models


def test_every_parameter_is_written_by_the_first_part_that_it_fits():
    one, two = readers()
    optimizer = nl.optim.Optimizer(
        one.named_parameters(), 0.01, matrix=RULE, element=gradient(), model=one, weight_decay=0.3
    )
    apart = [
        nl.optim.Adam([two.tokens.weight], 0.05, weight_decay=0.3),
        nl.optim.Momentum([two.head.weight], 0.01, retention=0.5, weight_decay=0.1),
        nl.optim.Muon([two.body.weight], 0.01, retention=0.9, weight_decay=0.3),
        nl.optim.GradientDescent([two.body.bias], 0.01, weight_decay=0.3),
    ]

    class Together(torch.optim.Optimizer):
        def __init__(self) -> None:
            super().__init__(two.parameters(), {})

        def step(self, closure=None):
            for each in apart:
                each.step()

    for ours, theirs in zip(trained(optimizer, one), trained(Together(), two), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert [group["part"] for group in optimizer.param_groups] == ["matrix.tables", "matrix.part3", "", "matrix.part2"]
    assert len(nl.describe(optimizer).everything) == 4


def test_a_group_keeps_its_own_rates_and_settings_and_schedulers_move_all():
    (model,) = readers(1)
    groups = [
        {"params": [("body", model.body.weight), ("head", model.head.weight)], "weight_decay": 0.5},
        {"params": [("bias", model.body.bias)], "matrix.part3.momentum.retention": 0.2},
    ]
    optimizer = nl.optim.Optimizer(groups, 0.01, matrix=partition(*RULE.members[1:]), element=gradient())
    rates = [(group["part"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert rates == [("matrix.part3", 0.01, 0.5), ("matrix.part2", 0.01, 0.5), ("", 0.01, 0.0)]
    optimizer = nl.optim.Optimizer(model.named_parameters(), 0.01, matrix=RULE, element=gradient(), model=model)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    trained(optimizer, model, 1)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.005, 0.005, 0.005]
    optimizer.param_groups[1]["matrix.part3.momentum.retention"] = 0.2
    assert optimizer.rules(optimizer.param_groups[1]).matrix == muon(0.2)


def test_a_checkpoint_goes_on_in_its_parts():
    one, two = readers()
    first = nl.optim.Optimizer(one.named_parameters(), 0.01, matrix=RULE, model=one)
    trained(first, one)
    two.load_state_dict(one.state_dict())
    other = nl.optim.Optimizer(two.named_parameters(), 0.01, matrix=RULE, model=two)
    other.load_state_dict(first.state_dict())
    for ours, theirs in zip(trained(first, one), trained(other, two), strict=True):
        assert torch.equal(ours, theirs)
    alone = nl.optim.Optimizer(two.named_parameters(), 0.01, matrix=muon())
    with pytest.raises(ValueError, match=r"different number of|another rule"):
        alone.load_state_dict(first.state_dict())


def test_vectors_are_parted_by_the_rule_for_entries():
    (model,) = readers(1)
    rule = partition(part(adam(), names="*bias"), part(gradient()))
    optimizer = nl.optim.Optimizer(model.named_parameters(), 0.01, element=rule)
    trained(optimizer, model, 1)
    assert "momentum.model.value" in optimizer.state[model.body.bias]
    assert list(optimizer.state[model.body.weight]) == ["step"]


def test_it_is_a_value_like_every_rule():
    assert eval(repr(RULE), vars(rules)) == RULE and from_data(json.loads(json.dumps(to_data(RULE)))) == RULE
    assert list(RULE.parts()) == [
        "tables", "tables.momentum", "tables.second_moment", "part2", "part2.sum", "part3", "part3.momentum",
        "part3.orthogonal",
    ]  # fmt: skip
    assert RULE.replace({"part3.momentum.retention": 0.5}).members[2].rule == muon(0.5)
    assert RULE.without("part2").members == (RULE.members[0], RULE.members[2])
    assert RULE.without("part2.sum").members[1].rule in (gradient(), chain())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda model: partition(muon()), "expected parts such as part"),
        (lambda model: chain(average(), RULE), "it is no step: pass it as matrix= or element="),
        (
            lambda model: partition(part(adam(), name="a"), part(muon(), name="a")),
            "two parts of the rule are called 'a'",
        ),
        (lambda model: part(adam(), lr=-1.0), r"part\(\): lr must be at least 0"),
        (lambda model: nl.optim.Optimizer(model.named_parameters(), 0.1, matrix=RULE), "is for tables"),
        (
            lambda model: nl.optim.Optimizer(model.parameters(), 0.1, matrix=RULE, model=model),
            "looks at parameter names",
        ),
        (
            lambda model: nl.optim.Optimizer(model.named_parameters(), 0.1, matrix=partition(part(adam(), names="x"))),
            r"no part fits the parameter tokens.weight with shape \(7, 4\)",
        ),
        (
            lambda model: nl.optim.Optimizer(model.parameters(), 0.1, element=partition(part(muon()))),
            "is for whole matrices: pass it as matrix=",
        ),
    ],
)
def test_what_is_no_partition_is_an_error_that_says_why(make, words):
    (model,) = readers(1)
    with pytest.raises((TypeError, ValueError), match=words):
        make(model)
