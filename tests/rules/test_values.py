"""A rule is data: frozen, checked when it is made, printed, stored, and changed part by part."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pickle

import pytest
import torch

import nestlearn as nl
from nestlearn import rules
from nestlearn.memory.models import MLP
from nestlearn.rules import (
    adam,
    average,
    chain,
    deep,
    every,
    from_data,
    gradient,
    orthogonal,
    parse,
    slow,
    sum,
    to_data,
    whiten,
    within,
)
from nestlearn.rules.registry import LINKS

from .examples import EVERY, RULES, composed, stepped

every_rule = pytest.mark.parametrize("rule", EVERY.values(), ids=EVERY)


@every_rule
def test_what_is_printed_makes_the_same_rule(rule):
    assert eval(repr(rule), vars(rules)) == rule == parse(repr(rule))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chain(average(0.9)", "expected a rule such as"),
        ("0.9", "expected a rule such as"),
        ("avrage(0.9)", r"unknown rule 'avrage'.*Did you mean 'average'"),
        ("average(retentoin=0.9)", "unexpected keyword argument 'retentoin'"),
        ("average(2.0)", "retention must be between 0 and 1"),
        ("average(**{})", "neither a rule nor a number"),
        ("__import__('os').system('true')", "neither a rule nor a number"),
        ("average(open('x'))", "unknown rule 'open'"),
        ("[average(x) for x in (1, 2)]", "neither a rule nor a number"),
        ("parallel(average(), combine='os:system')", "named in a file"),
    ],
)
def test_what_is_no_printed_rule_is_an_error_and_runs_nothing(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text)


def test_settings_of_ones_own_kind_are_printed_and_parsed():
    target = nl.targets.SecondMoment(retention=0.9)
    rule = deep(model=MLP(1, 3, 1), objective=nl.memory.L2(), target=target)
    assert parse(repr(rule)) == rule and from_data(to_data(rule)) == rule


@every_rule
def test_what_is_written_down_makes_the_same_rule(rule):
    data = to_data(rule)
    assert from_data(json.loads(json.dumps(data))) == rule
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert hash(rule) == hash(from_data(data))


@every_rule
def test_every_part_has_a_path_and_every_setting_one_below_it(rule):
    parts, settings = rule.parts(), rule.settings()
    assert all(path.rpartition(".")[0] in parts for path in settings)
    for path, part in parts.items():
        assert part.label == path.rpartition(".")[2]


@every_rule
def test_every_part_can_be_taken_away(rule):
    for path in rule.parts():
        rest = rule.without(path)
        if rule == gradient():  # what is left of a rule without parts
            assert rest == rule
            continue
        assert path not in rest.parts() and rest != rule


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_control_of_every_part_trains(rule):
    for path in rule.parts():
        if not path.endswith("fast"):  # what is beside it has no gradient of its own without it
            assert all(weight.isfinite().all() for weight in stepped(composed(rule.without(path)), steps=2))


def test_a_rule_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        average(0.9).retention = 0.5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: average(1.5), r"average\(\): retention must be between 0 and 1, got 1\.5"),
        (lambda: average("much"), r"average\(\): retention must be a number, got 'much'"),
        (lambda: every(0, average()), r"every\(\): writes must be a whole number of at least 1, got 0"),
        (lambda: orthogonal(scale="rsm"), r"unknown orthogonal\(\): scale 'rsm'.*Did you mean 'rms'"),
        (lambda: deep(target="second"), "unknown target 'second'.*Did you mean 'second_moment'"),
        (lambda: deep(retention=1.0, objective="dot_product"), "has no minimum: retention must be below 1"),
        (lambda: deep(objective="hypergradient", beside=slow()), r"beside must be an average\(\.\.\.\) or None"),
        (lambda: adam((0.9,)), "betas are two retentions"),
        (lambda: chain(average(), average()), r"2 memories are called 'average': give links a name="),
        (lambda: chain(average), "expected links such as average"),
        (lambda: within(average(), orthogonal()), "basis must be a basis, such as whiten"),
        (lambda: every(3, chain(average(), rules.secant())), "reads the weights"),
        (lambda: within(whiten(), rules.radial()), r"put it behind, chain\(within\(\.\.\.\), link\)"),
        (lambda: rules.parallel(average(), weights=(1.0, 2.0)), "one weight for each"),
        (lambda: average(0.9, nesterov=True, period=3), "nesterov looks ahead of the box itself"),
    ],
)
def test_what_is_no_rule_is_an_error_when_it_is_made(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_settings_are_found_by_the_end_of_their_path():
    rule = chain(average(0.65, nesterov=True), within(whiten(retention=0.97), orthogonal()), slow())
    assert rule.replace(damping=0.3) == rule.replace({"whiten.damping": 0.3})
    assert rule.replace({"average.retention": 0.5}).parts()["average"].retention == 0.5
    with pytest.raises(ValueError, match=r"could be any of average\.retention, whiten\.retention, slow\.retention"):
        rule.replace(retention=0.5)
    with pytest.raises(ValueError, match=r"no setting 'dampnig'.*Did you mean"):
        rule.replace(dampnig=0.5)
    with pytest.raises(ValueError, match=r"no part 'whitening'.*Did you mean 'whiten'"):
        rule.without("whitening")
    with pytest.raises(ValueError, match="retention must be between"):
        rule.replace({"slow.retention": 2.0})


def test_what_is_left_without_a_part():
    rule = chain(average(0.9), within(whiten(), orthogonal()), slow())
    assert rule.without("whiten") == chain(average(0.9), orthogonal(), slow())
    assert rule.without("slow") == chain(average(0.9), within(whiten(), orthogonal()))
    assert deep(beside=average(0.8)).without("deep") == average(0.8)
    boxes = average(0.8, corrected=True, name="deep_adam.m"), rules.second_moment(0.9, name="deep_adam.v")
    assert rules.deep_adam(first=0.8, second=0.9).without("deep_adam") == chain(*boxes)
    assert deep(written_by=adam()).without("deep.second_moment").written_by == chain(adam().links[0])
    assert sum().without("sum") == gradient()


def test_a_memory_of_a_target_can_be_taken_away_alone():
    one = deep(beside=average(0.8))
    assert one.without("second_moment") == deep(beside=average(0.8), target="identity")
    two = chain(deep(written_by=chain(deep(name="inner", target="average_gradient"))), orthogonal())
    inner = deep(name="inner", target="identity")
    assert two.without("deep.average_gradient") == chain(deep(written_by=chain(inner)), orthogonal())
    # A part of the name comes first; and what remembers nothing has nothing to be taken away.
    assert chain(rules.second_moment(), deep(target="identity")).without("second_moment") == chain(
        deep(target="identity")
    )
    with pytest.raises(ValueError, match=r"no part 'second_moment': expected one of deep\."):
        deep(target="identity").without("second_moment")
    with pytest.raises(ValueError, match="no part 'second_moment'"):
        deep(objective="hypergradient").without("second_moment")


def test_every_public_link_has_its_name_in_data():
    public = {name: getattr(rules, name) for name in rules.__all__}
    kinds = {name: kind for name, kind in public.items() if isinstance(kind, type) and issubclass(kind, rules.Link)}
    assert dict(LINKS) == {name: kind for name, kind in kinds.items() if not inspect.isabstract(kind)}


def test_paths_lead_behind_memories():
    rule = deep(written_by=deep(written_by=adam()))
    assert list(rule.parts()) == ["deep", "deep.deep", "deep.deep.momentum", "deep.deep.second_moment"]
    changed = rule.replace({"deep.deep.momentum.retention": 0.5})
    assert changed.written_by.written_by.parts()["momentum"].retention == 0.5


def test_functions_are_not_written_down_and_classes_of_others_only_from_what_was_typed():
    target = nl.targets.GaussNewton(sampled_loss=lambda: torch.zeros(()), batch_size=2)
    with pytest.raises(TypeError, match="cannot be written down"):
        to_data(rules.precondition(target))
    assert to_data(deep(model=MLP(3, 4, 3))) == {
        "deep": {"model": {"model.MLP": {"in_dim": 3, "hidden": 4, "out_dim": 3}}}
    }
    mine = {"tests_of_rules_of_ones_own:Mine": {}}
    with pytest.raises(ValueError, match="imported only for a rule that you typed"):
        from_data(mine)
    with pytest.raises(ValueError, match="cannot import the module of the rule"):
        from_data(mine, typed=True)
    with pytest.raises(ValueError, match=r"unknown rule 'avrage'.*Did you mean"):
        from_data({"avrage": {}})
    with pytest.raises(ValueError, match="unknown setting of average 'keep'"):
        from_data({"average": {"keep": 0.9}})
