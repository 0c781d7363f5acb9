"""What Trainer is given; tests/hosts has it in the real one."""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import nestlearn as nl
from nestlearn.integrations.huggingface import for_trainer


class Trainer:
    """As that of transformers, with another opinion of what decays."""

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return [name for name, _ in model.named_parameters() if name.endswith("weight")]


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(Trainer=Trainer))


def called(kind: Any, model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    """As Trainer calls what is no class."""
    factory, rest = for_trainer(kind, **settings)
    return factory()(model, **rest)


@pytest.mark.usefixtures("transformers")
@pytest.mark.parametrize(
    ("kind", "watch", "watched"),
    [
        (nl.optim.LayerMomentum, None, True),
        (nl.optim.SecantMomentum, None, False),
        (nl.optim.SecantMomentum, True, True),
        (nl.optim.Muon, None, False),
    ],
)
def test_the_model_is_given_where_it_is_needed_or_asked_for(kind: Any, watch: bool | None, watched: bool) -> None:
    model, given = nn.Linear(4, 3), {}

    def spied(params: Any, **settings: Any) -> torch.optim.Optimizer:
        given.update(settings)
        return kind(params, **settings)

    spied.__signature__ = inspect.signature(kind)
    called(spied, model, lr=0.01, watch=watch)
    assert (given.get("model") is model) == watched


@pytest.mark.usefixtures("transformers")
def test_groups_have_names_decay_and_only_what_is_trained() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[1].bias.requires_grad_(False)
    decaying, other = called(nl.optim.Muon, model, lr=0.02, weight_decay=0.5).param_groups
    assert (decaying["param_names"], other["param_names"]) == (["0.weight", "1.weight"], ["0.bias"])
    assert (decaying["weight_decay"], other["weight_decay"]) == (0.5, 0.0)
    assert decaying["lr"] == other["lr"] == 0.02


@pytest.mark.usefixtures("transformers")
def test_a_group_without_parameters_is_left_out() -> None:
    (group,) = called(nl.optim.Muon, nn.Linear(4, 3, bias=False), weight_decay=0.5).param_groups
    assert group["weight_decay"] == 0.5


def test_a_missing_package_is_answered_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(nl.errors.MissingPackageError, match=r'pip install "nestlearn\[hosts\]"'):
        called(nl.optim.Muon, nn.Linear(4, 3))
