"""What a switch says is what is gone: the optimizer is made without the part, and its memories are looked up again."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import nestlearn as nl
from nestlearn.contenders import find_contender
from nestlearn.integrations.places import places
from nestlearn.integrations.switches import Switch, switches
from nestlearn.memory import Said
from nestlearn.rules import Link, Linked, average, chain, slow

NAMES = (
    *(
        "Adam",
        "DeepAdam",
        "DeepMomentum",
        "DeltaMomentum",
        "LayerMomentum",
        "M3",
        "Muon",
        "Nested",
        "SOAP",
        "SecantMomentum",
    ),
    "two=chain(average(0.9), deep(written_by=chain(deep(name='inner')), target='kronecker'))",
    "split=partition(part(chain(average(0.9), orthogonal()), shape=(16, 8)), part(chain(average(0.8), slow(0.9))))",
    "cut=blocks(2, chain(average(0.9, nesterov=True), orthogonal()))",
    "rising=chain(average(ramp(0.5, 0.9, 10)), orthogonal())",
)


def trained(name: str, **settings: str) -> torch.optim.Optimizer:
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    made = find_contender(name).make(model, 0.01, tables=[], elementwise_lr=0.01, **settings)
    for _ in range(2):
        model(torch.randn(32, 8)).square().mean().backward()
        for optimizer in made:
            optimizer.step()
    return made[0]


def memories(optimizer: torch.optim.Optimizer) -> set[str]:
    return {place.memory for place in places(optimizer) if "." in place.memory}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_switch_takes_is_gone_and_nothing_else_is(name: str) -> None:
    optimizer = trained(name)
    before, found = memories(optimizer), switches(optimizer)
    assert set(found) == before - ({"matrix.m", "matrix.v"} if name == "DeepAdam" else set())
    for memory, switch in found.items():
        left = memories(trained(name, without=switch.part))
        gone = before - left
        # One rule for all writes entries and matrices alike: the switch says it of those that its memory is of.
        of = memory.partition(".")[0] + "."
        assert {each for each in gone if each.startswith(of)} == {memory, *switch.along}
        assert left <= before


def test_vectors_and_targets_have_switches_of_their_own() -> None:
    found = switches(trained("DeepMomentum"))
    assert found["matrix.second_moment"] == Switch("second_moment")
    assert found["element.second_moment"] == Switch("element.second_moment")
    assert found["matrix.momentum"] == Switch("momentum", ("matrix.second_moment",))
    split = switches(trained(NAMES[-3]))
    assert split["matrix.average"].part == "part1.average,part2.average"


@dataclass(frozen=True, repr=False)
class Second(Link):
    """A link that cannot be the first one, and says so by an error of its own."""

    error: type[Exception] = ValueError

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        if a is u:
            raise self.error("expected a link before it")
        return Linked(a)


@pytest.mark.parametrize("error", [ValueError, AssertionError, KeyError, RuntimeError])
def test_what_a_rule_cannot_do_without_has_no_switch(error: type[Exception]) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = nl.optim.Optimizer([weight], 0.1, matrix=chain(average(0.9), Second(error), slow(0.9)))
    assert switches(optimizer) == {"matrix.slow": Switch("slow")}


def test_rules_of_others_have_no_parts() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    assert switches(torch.optim.AdamW([weight])) == {}
    assert switches(nl.optim.GradientDescent([weight])) == {}
