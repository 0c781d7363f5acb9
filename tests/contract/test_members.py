"""The list of members is complete and every exported optimizer has the signature the contract promises."""

from __future__ import annotations

import inspect

import pytest
import torch

import nestlearn as nl

from .members import EVERY, MEMBERS, Member, exported_optimizers
from .problems import network

COMMON = {
    "weight_decay": 0.0,
    "maximize": False,
    "period": 1,
    "elementwise": None,
    "elementwise_lr": None,
    "averaged_weights": None,
    "nonfinite": "raise",
    "compile": False,
}
GROUPED = ("weight_decay", "maximize", "period", "elementwise_lr", "averaged_weights", "nonfinite")
"""The common keywords that are settings of a parameter group."""
NAMES = {
    "GradientDescent",
    "Momentum",
    "PreconditionedMomentum",
    "DeltaMomentum",
    "DeepMomentum",
    "Adam",
    "DeepAdam",
    "Muon",
    "M3",
    "SecantMomentum",
    "LayerMomentum",
    "DeltaGradientDescent",
}


def test_every_exported_optimizer_is_a_member() -> None:
    assert set(exported_optimizers()) == {member.name for member in MEMBERS}


def test_the_promised_names_are_exported() -> None:
    assert set(exported_optimizers()) >= NAMES


def test_every_target_is_used_by_a_member() -> None:
    """Except Gauss-Newton-Bartlett, whose instance holds a function of one model."""
    used = {member.settings.get("target", "second_moment") for member in MEMBERS}
    assert used == set(nl.targets.TARGETS) - {"gauss_newton"}


def test_members_have_distinct_ids() -> None:
    assert len({str(member) for member in MEMBERS}) == len(MEMBERS)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_everything_after_lr_is_keyword_only_and_has_a_default(name: str) -> None:
    _, first, second, *rest = inspect.signature(exported_optimizers()[name].__init__).parameters.values()
    assert (first.name, second.name) == ("params", "lr")
    assert second.default is not inspect.Parameter.empty
    for parameter in rest:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            assert "Common" in str(parameter.annotation)
            continue
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, parameter
        required = parameter.name == "model" and name in {"LayerMomentum", "DeltaGradientDescent"}
        assert required or parameter.default is not inspect.Parameter.empty, parameter


@pytest.mark.parametrize(**EVERY)
def test_common_keywords_are_taken_and_have_the_promised_defaults(member: Member) -> None:
    implied, spelled = member.build(network()), member.build(network(), **COMMON)
    assert {key: implied.defaults[key] for key in GROUPED} == {key: COMMON[key] for key in GROUPED}
    assert implied.defaults == spelled.defaults


@pytest.mark.parametrize("name", sorted(NAMES))
def test_there_is_a_docstring_with_an_equation(name: str) -> None:
    text = inspect.getdoc(exported_optimizers()[name]) or ""
    module = inspect.getdoc(inspect.getmodule(exported_optimizers()[name])) or ""
    assert any(f"O{number}" in text + module for number in range(1, 20))


@pytest.mark.parametrize(**EVERY)
def test_is_a_torch_optimizer(member: Member) -> None:
    optimizer = member.build(network())
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert member.name in repr(optimizer)
