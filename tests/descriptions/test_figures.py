"""Figures 1 and 2 of the article come out of rules, box by box and arrow by arrow."""

from __future__ import annotations

import torch
from torch import nn

import nestlearn as nl
from nestlearn.descriptions import Described, NestedSystem
from nestlearn.rules import deep, deep_adam


def described(rule: nl.rules.Link) -> NestedSystem:
    return nl.describe(nl.optim.Optimizer([nn.Parameter(torch.ones(6, 4))], lr=0.1, matrix=rule))


def drawn(system: NestedSystem) -> dict[str, tuple[int, str, str, str, str]]:
    """Every box with its level, the rule that its arrow leads to, its model, what it is shown, and its objective."""

    def box(memory: Described) -> tuple[int, str, str, str, str]:
        return memory.level, memory.consulted_by, memory.model, f"{memory.key} -> {memory.value}", memory.objective

    return {memory.name: box(memory) for memory in system.memories}


def test_figure_1_is_one_deep_memory_behind_the_weights():
    """Wirer 1 asks M and writes W; Wirer 2 writes M by l2 regression from the gradient to P ([S] 5.3)."""
    system = described(deep(8, inner_lr=0.2, retention=0.9, target="random_features", name="M"))
    assert drawn(system) == {
        "weights": (1, "", "the model's parameters", "inputs -> targets", "the loss"),
        "M": (2, "weights", "MLP 4-8-4", "unit_rows(u) -> unit_rows(random_features(u)) - unit_rows(u)", "mean l2"),
    }
    weights, memory = system.memories
    # M <- alpha M - eta grad L; its answer to the gradient is the gradient's own and what the MLP adds.
    assert (memory.rule, memory.lr, memory.retention) == ("gradient descent", "0.2", "0.9")
    assert (weights.rule, weights.update, weights.lr) == ("consult", "as_matrix(unit_rows(u) + M, u)", "lr")
    assert [level.number for level in system.levels] == [1, 2]


def test_the_figure_goes_on_indefinitely():
    """ "We can create another momentum M2 for our now-upgraded momentum M1, and this process can continue"."""
    inner = deep(8, target="random_features", name="M3")
    for name in ("M2", "M1"):
        inner = deep(8, target="random_features", name=name, written_by=inner)
    system = described(inner)
    assert {name: box[:2] for name, box in drawn(system).items()} == {
        "weights": (1, ""),
        "M1": (2, "weights"),
        "M1.M2": (3, "M1"),
        "M1.M2.M3": (4, "M1.M2"),
    }


def test_a_target_that_remembers_has_a_box_beside_the_memory():
    boxes = drawn(described(deep(8)))
    assert set(boxes) == {"weights", "deep", "second_moment"}
    assert boxes["second_moment"][:3] == (2, "weights", "box") and boxes["deep"][:2] == (2, "weights")


def test_figure_2_is_two_deep_memories_side_by_side():
    """Momentum and velocity learn in parallel on one level, and Wirer 1 asks both ([S] 5.4)."""
    system = described(deep_adam(8, name=""))
    boxes = drawn(system)
    networks = {name: box[:3] for name, box in boxes.items() if box[2].startswith("MLP")}
    assert networks == {"momentum": (2, "weights", "MLP 4-8-4"), "second_moment": (2, "weights", "MLP 4-8-4")}
    # Each corrects the box that Adam has in its place, and both are shown the gradient of before.
    assert {name: box[:4] for name, box in boxes.items() if box[2] == "box"} == {
        "m": (2, "weights", "box", "none -> u"),
        "v": (2, "weights", "box", "none -> u^2"),
        "previous": (2, "weights", "box", "none -> u"),
    }
    side = "sqrt(min(rows(u), columns(u)))"
    assert boxes["momentum"][3:] == (f"unit_rows(previous) -> as_rows((u - m) / sqrt(or_one(v))) / {side}", "mean l2")
    assert boxes["second_moment"][3:] == (
        f"unit_rows(previous) -> as_rows(min(u^2 / or_one(v), 10) - 1) / {side}",
        "mean l2",
    )
    assert {memory.query for memory in system.memories if memory.name in networks} == {"unit_rows(u)"}
    assert system.memories[0].update == (
        "(m + sqrt(v) * as_matrix(momentum, u)) / (sqrt(v * max(1 + as_matrix(second_moment, u), 0.1)) + 1e-08)"
    )
    assert len(system.levels) == 2


def test_adam_is_two_levels_of_three_memories():
    """ "Using Adam represents a 2-layered memory paradigm of nested learning with three memory models" ([S] 6)."""
    system = described(nl.rules.adam())
    assert (len(system.levels), len(system.memories)) == (2, 3)
    assert {memory.model for memory in system.levels[1].memories} == {"box"}


def test_the_pictures_have_the_boxes_and_a_line_from_each():
    for rule in (deep(8, target="random_features", name="M"), deep_adam(8, name="")):
        system = described(rule)
        picture = system.svg()
        for memory in system.memories:
            assert f">{memory.name.replace('_', ' ')}" in picture
        assert picture.count("mean l2") == len([each for each in system.memories if each.model.startswith("MLP")])
