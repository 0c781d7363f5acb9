"""A rule is a contender: its name says all of it, in settings, files and processes."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import nestlearn as nl
from nestlearn.comparison import CompareSettings, resolve
from nestlearn.contenders import CONTENDERS, Variant, find_contender, find_contenders, rule_name
from nestlearn.errors import SettingsError
from nestlearn.rules import adam, average, chain, deep, muon, orthogonal, slow, whiten, within
from nestlearn.training import RunSpec, TrainSettings, merge, resolve_training

RULE = chain(average(0.65, nesterov=True), within(whiten("root", refresh=5), orthogonal()), slow())
NAME = rule_name(RULE, "arena", "whiten")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.Linear(3, 2))


def made(name: str, **settings: object) -> nl.optim.Optimizer:
    model = network()
    found = [model[0].weight, model[2].weight]
    (optimizer,) = find_contender(name).make(model, 0.1, tables=found, elementwise_lr=0.02, **settings)
    return optimizer


def test_a_name_says_all_of_a_rule_and_is_found_again():
    contender = find_contender(NAME)
    assert contender.name == NAME and contender.label == "arena" and contender.control == {"without": "whiten"}
    assert find_contender(repr(RULE)).label == "average+whiten+orthogonal+slow"
    assert Variant(NAME, True).name == "arena (control)"
    assert {muon.__name__: find_contender("muon(0.9)").lr}["muon"] == CONTENDERS["Muon"].lr
    assert find_contender("adam()").lr == CONTENDERS["AdamW"].lr


def test_it_is_put_on_hidden_matrices_with_its_settings():
    optimizer = made(NAME, retention=0.8, weight_decay=0.3, slow={"weight": 0.5})
    hidden, rest = optimizer.param_groups
    expected = RULE.replace({"average.retention": 0.8, "slow.weight": 0.5})
    assert optimizer.rules(hidden).matrix == expected and hidden["weight_decay"] == 0.3
    assert rest["weight_decay"] == 0.0 and rest["elementwise_lr"] == 0.02
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 4]
    kinds = [
        optimizer.entry(parameter, group).flat for group in optimizer.param_groups for parameter in group["params"]
    ]
    assert kinds == [False, True, True, True, True]


def test_the_control_lacks_a_part_and_what_is_tuned_of_it():
    optimizer = made(NAME, without="whiten")
    assert optimizer.rules(optimizer.param_groups[0]).matrix == RULE.without("whiten")
    contender = find_contender("m=chain(average(0.9), orthogonal()) without average")
    assert contender.tuned == ("retention", "weight_decay") and contender.control_tuned == ("weight_decay",)
    optimizer = made(contender.name, without="average", retention=0.5)
    assert optimizer.rules(optimizer.param_groups[0]).matrix == chain(orthogonal())
    assert find_contender(rule_name(deep(beside=average(0.8)))).inner_lr == 0.1


def test_a_rule_that_looks_at_layers_is_given_the_model():
    watching = chain(average(0.9), within(whiten(of="layers"), orthogonal()))
    assert made(rule_name(watching)).model is not None and made(rule_name(muon())).model is None


def test_a_schedule_may_stand_beside_it():
    optimizer = made(NAME, average={"retention": {"ramp": {"start": 0.5, "stop": 0.9, "writes": 10}}})
    assert optimizer.rules(optimizer.param_groups[0]).matrix == RULE.replace({"average.retention": 0.5})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"optimizer": "mine=muon(0.9)"}, "mine=" + repr(muon(0.9))),
        ({"optimizer": {"rule": "muon(0.9)", "name": "mine"}}, "mine=" + repr(muon(0.9))),
        ({"optimizer": {"rule": "muon(0.9)"}}, "momentum+orthogonal=" + repr(muon(0.9))),
        ({"optimizer": {"rule": nl.rules.to_data(muon(0.9)), "name": "mine"}}, "mine=" + repr(muon(0.9))),
    ],
)
def test_settings_of_a_training_carry_it_and_come_back(given, name):
    settings = resolve_training(TrainSettings(), given, "optimizer.momentum.retention=0.5")
    assert settings.optimizer.name == name
    again = merge(TrainSettings(), json.loads(settings.model_dump_json()))
    assert again == settings
    (spec,) = settings.specs()
    assert RunSpec.from_plain(json.loads(json.dumps(spec.to_plain()))).contender.name == name
    (optimizer,) = spec.contender.make(network(), tables=[], **spec.arguments)
    assert optimizer.rules(optimizer.param_groups[0]).matrix == muon(0.5)


def test_settings_of_a_comparison_carry_it_and_come_back():
    listed = ["Adam", NAME, {"name": "two", "rule": nl.rules.to_data(adam()), "without": "momentum"}]
    settings = resolve(
        CompareSettings(optimizers=listed, tasks=("digits",), fixed={"arena": {"slow": {"weight": 1.0}}})
    )
    assert settings.optimizers == ("AdamW", "Adam", "Muon", NAME, rule_name(adam(), "two", "momentum"))
    assert [contender.label for contender in find_contenders(settings.optimizers)][3:] == ["arena", "two"]
    assert resolve(CompareSettings(**json.loads(settings.model_dump_json()))) == settings


def test_keys_of_runs_differ_where_rules_do_and_are_as_before_elsewhere():
    def key(name: str) -> str:
        return RunSpec("digits", Variant(name), (("lr", 0.1),), 0, 10).key

    assert key("a=" + repr(muon(0.9))) != key("a=" + repr(muon(0.8)))
    assert key("a=" + repr(muon(0.9))).startswith("digits/a/lr=0.1/seed0/steps10-")
    assert key("Muon") == "digits/Muon/lr=0.1/seed0/steps10-d52a53ad"


def test_a_class_of_ones_own_is_named_as_data(tmp_path, monkeypatch):
    (tmp_path / "my_links.py").write_text(
        "from dataclasses import dataclass\n"
        "import nestlearn as nl\n\n"
        "@dataclass(frozen=True, repr=False)\n"
        "class sign(nl.rules.Link):\n"
        "    def link(self, shape, u, a):\n"
        "        return nl.rules.Linked(nl.memory.Said(f'sign({a.words})', lambda scene: a(scene).sign()))\n"
    )
    monkeypatch.chdir(tmp_path)
    data = {"chain": {"links": [{"average": {"retention": 0.8}}, {"my_links:sign": {}}]}}
    name = rule_name(data, "lion")
    assert name == "lion=" + json.dumps(data)
    optimizer = made(name)
    weight = optimizer.param_groups[0]["params"][0]
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert "average.model.value" in optimizer.state[weight]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("mine=chain(average(0.9)", "expected a rule such as"),
        ("mine=avrage(0.9)", r"unknown rule 'avrage'.*Did you mean 'average'"),
        ("mine=muon(0.9) without whiten", r"no part 'whiten'"),
        ("mine=muon(2.0)", "retention must be between 0 and 1"),
    ],
)
def test_what_is_no_rule_is_an_error_that_says_why(given, words):
    with pytest.raises(SettingsError, match=words):
        resolve_training(TrainSettings(), {"optimizer": given})


def test_two_of_one_name_cannot_be_told_apart():
    with pytest.raises(SettingsError, match="2 are called 'a'"):
        resolve(CompareSettings(optimizers=("a=muon(0.9)", "a=muon(0.8)"), tasks=("digits",)))
    with pytest.raises(SettingsError, match="expected a rule beside the name"):
        merge(CompareSettings(), {"optimizers": [{"name": "a"}]})
