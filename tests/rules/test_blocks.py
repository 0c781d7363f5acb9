"""Matrices that are several in one: cut into blocks they are written as separate parameters are."""

from __future__ import annotations

import pytest
import torch
from descriptions.replays import through_json
from torch import Tensor, nn

import nestlearn as nl
from nestlearn import rules
from nestlearn.descriptions import rebuild
from nestlearn.ops import newton_schulz
from nestlearn.rules import (
    Link,
    adam,
    average,
    averaged_weights,
    blocks,
    cautious,
    chain,
    constant_norm,
    deep,
    every,
    from_data,
    muon,
    orthogonal,
    outer,
    parse,
    part,
    partition,
    precondition,
    row_norm,
    second_moment,
    sum,
    to_data,
    whiten,
    within,
)

SAME = {"rtol": 1e-11, "atol": 1e-12}
RULES: dict[str, Link] = {
    "muon": muon(0.7),
    "before and after": chain(average(0.7), within(whiten("root", 0.9, refresh=3), orthogonal())),
    "an eigenbasis": chain(average(0.7), within(whiten("eigen", 0.9, refresh=2), second_moment(0.9)), orthogonal()),
    "weights": chain(muon(0.7), row_norm(0.9), cautious(), constant_norm(), averaged_weights(0.8)),
    "a deep memory": chain(deep(4, beside=average(0.8), written_by=adam()), orthogonal()),
    "seldom": every(3, chain(average(0.5), orthogonal())),
    "outer": chain(muon(0.7), outer(3, sum(0.5))),
    "factors": chain(precondition("kronecker"), sum(0.5)),
    "entries": adam(),
}


def cut(matrix: Tensor, of: str) -> list[Tensor]:
    return list(matrix.chunk(3, dim=0 if of == "rows" else 1))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(
    ("of", "shape"),
    [("columns", (5, 12)), *(pytest.param("rows", shape, marks=pytest.mark.slow) for shape in ((12, 5), (6, 2, 2, 2)))],
)
@pytest.mark.parametrize("period", [1, 2])
def test_blocks_are_written_as_separate_parameters_are(rule, of, shape, period):
    torch.manual_seed(0)
    together = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for _ in range(2)]
    apart = [nn.Parameter(each.clone()) for weight in together for each in cut(weight.detach(), of)]
    settings = {"weight_decay": 0.3, "period": period}
    one = nl.optim.Optimizer(together, 0.1, matrix=blocks(3, rule, of=of), **settings)
    other = nl.optim.Optimizer(apart, 0.1, matrix=rule, **settings)
    for time in range(8):
        for number, weight in enumerate(together):
            weight.grad = torch.randn_like(weight) if time != 3 or number else None  # they fall out of step
            pieces = [None] * 3 if weight.grad is None else cut(weight.grad, of)
            for piece, each in zip(pieces, apart[3 * number :], strict=False):
                each.grad = None if piece is None else piece.clone()
        one.step()
        other.step()
    for number, weight in enumerate(together):
        expected = torch.cat([each.detach() for each in apart[3 * number :][:3]], 0 if of == "rows" else 1)
        torch.testing.assert_close(weight.detach(), expected, **SAME)
    ours, theirs = ({m.name: (m.count, m.bytes) for m in nl.describe(each).memories} for each in (one, other))
    assert ours.pop("weights")[1] == theirs.pop("weights")[1] and ours == theirs
    if "averaged_weights" in rule.parts():
        for optimizer in (one, other):
            optimizer.eval()
        expected = torch.cat([each.detach() for each in apart[:3]], 0 if of == "rows" else 1)
        torch.testing.assert_close(together[0].detach(), expected, **SAME)


def test_a_fused_projection_among_others_is_a_part_of_a_partition():
    def attention() -> nn.Module:
        torch.manual_seed(0)
        return nn.MultiheadAttention(6, 2).double()

    def trained(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> list[Tensor]:
        for step in range(steps):
            optimizer.zero_grad()
            tokens = torch.randn(4, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            module(tokens, tokens, tokens)[0].square().sum().backward()
            optimizer.step()
        return [parameter.detach().clone() for parameter in module.parameters()]

    rule = partition(part(blocks(3, muon(0.7)), names="*in_proj*"), part(muon(0.7)))
    one, two = attention(), attention()
    optimizer = nl.optim.Optimizer(one.named_parameters(), 0.05, matrix=rule)
    assert [group["part"] for group in optimizer.param_groups] == ["matrix.part1", "", "matrix.part2"]
    whole = nl.optim.Optimizer(two.named_parameters(), 0.05, matrix=muon(0.7))
    ours, theirs = trained(one, optimizer), trained(two, whole)
    assert not torch.allclose(ours[0], theirs[0])  # orthogonal blocks are no orthogonal matrix
    start = attention()
    trained(start, nl.optim.Optimizer(start.named_parameters(), 0.05, matrix=rule, element=sum(0.0)), 1)
    moved = start.in_proj_weight.detach() - attention().in_proj_weight.detach()
    assert start.in_proj_weight.grad is not None
    for block, gradient in zip(moved.chunk(3), start.in_proj_weight.grad.chunk(3), strict=True):
        torch.testing.assert_close(block, -0.05 * 0.2 * 6**0.5 * newton_schulz(gradient, 5), rtol=1e-4, atol=1e-6)
    path = "matrix.part1.momentum.retention"
    optimizer.param_groups[0][path] = 0.2
    assert optimizer.rules(optimizer.param_groups[0]).matrix == blocks(3, muon(0.2))
    other = nl.optim.Optimizer(two.named_parameters(), 0.05, matrix=rule)
    two.load_state_dict(one.state_dict())
    other.load_state_dict(optimizer.state_dict())
    for mine, yours in zip(trained(one, optimizer), trained(two, other), strict=True):
        assert torch.equal(mine, yours)


def test_a_description_is_that_of_a_block():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 4, dtype=torch.float64))
    rule = chain(average(0.7), within(whiten("root", 0.9), orthogonal()), constant_norm())
    optimizer = nl.optim.Optimizer([weight], 0.1, matrix=blocks(3, rule), weight_decay=0.3)
    system = nl.describe(optimizer)
    assert "each matrix is 3 blocks of rows" in str(system)
    learner = rebuild(through_json(system))
    states = [learner.init(block) for block in cut(weight.detach(), "rows")]
    for _ in range(20):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
        pieces = cut(weight.grad, "rows")
        states = [learner.write(state, piece) for state, piece in zip(states, pieces, strict=True)]
        learned = torch.cat([state["weights"]["model"]["value"] for state in states])
        torch.testing.assert_close(learned, weight.detach(), rtol=1e-9, atol=1e-10)


def test_it_is_a_value_like_every_rule():
    rule = partition(part(blocks(3, muon(0.7), of="columns"), names="*qkv*"), part(muon()))
    assert eval(repr(rule), vars(rules)) == rule == parse(repr(rule)) == from_data(to_data(rule))
    assert list(rule.parts()) == [
        "part1", "part1.blocks", "part1.momentum", "part1.orthogonal", "part2", "part2.momentum", "part2.orthogonal",
    ]  # fmt: skip
    assert blocks(3, muon(0.7)).without("blocks") == muon(0.7)
    assert blocks(3, muon(0.7)).without("orthogonal") == blocks(3, chain(muon(0.7).links[0]))
    assert blocks(3, muon(0.7)).replace(into=2, retention=0.5) == blocks(2, muon(0.5))
    assert blocks(3, average(0.5)).without("average").rule == rules.gradient()


def test_averaged_weights_of_an_optimizer_come_inside():
    weight = nn.Parameter(torch.randn(6, 4))
    optimizer = nl.optim.Optimizer([weight], 0.1, matrix=blocks(3, muon()), averaged_weights=0.9)
    assert optimizer.rules(optimizer.param_groups[0]).matrix == blocks(3, chain(*muon().links, averaged_weights(0.9)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda weight: blocks(0, muon()), "into must be a whole number of at least 1"),
        (lambda weight: blocks(3, 0.9), r"rule must be a rule such as muon\(\)"),
        (lambda weight: blocks(3, within(whiten(of="layers"), orthogonal())), "looks at what is measured of whole"),
        (lambda weight: blocks(3, rules.newton(4)), "looks at what is measured of whole matrices"),
        (lambda weight: blocks(3, blocks(2, muon())), "stands outside of a rule"),
        (lambda weight: chain(average(), blocks(3, orthogonal())), "it is no step: pass it as matrix="),
        (lambda weight: deep(4, written_by=blocks(3, muon())), "is for the weights"),
        (
            lambda weight: nl.optim.Optimizer([weight], 0.1, matrix=blocks(3, muon())),
            "parameter 0 of group 0 with shape .8, 6.: 8 rows cannot be cut into 3 equal blocks",
        ),
        (
            lambda weight: nl.optim.Optimizer([weight], 0.1, element=blocks(2, adam())),
            "is for whole matrices: pass it as matrix=",
        ),
    ],
)
def test_what_cannot_be_cut_is_an_error_that_says_why(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make(nn.Parameter(torch.ones(8, 6)))
