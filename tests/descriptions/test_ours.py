"""Descriptions of our optimizers agree with their own rules and with the bytes in their state."""

import json
import re

import pytest
import torch
from contract.members import MEMBERS, Member
from rules.examples import EVERY as RULES
from torch import nn

import nestlearn as nl
from nestlearn.descriptions import NestedSystem
from nestlearn.descriptions.table import MEASURED


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))


def default(name: str, module: nn.Module, **settings: object) -> torch.optim.Optimizer:
    (member, *_) = (member for member in MEMBERS if member.name == name)
    return Member(name, settings, model=member.model).build(module)


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = module(torch.randn(16, 6)).square().mean()
        loss.backward(retain_graph=True)
        return loss

    optimizer.step(closure)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    return sum(t.numel() * t.element_size() for state in optimizer.state.values() for t in state.values())


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_deep_momentum_has_a_memory_for_each_level_and_copies_of_it(depth):
    system = nl.describe(default("DeepMomentum", network(), levels=depth, hidden=3))
    assert len(system.levels) == depth + 1
    deep = [memory for memory in system.memories if memory.model.startswith("MLP")]
    assert len(deep) == depth
    matrices = 2
    assert [memory.count for memory in deep] == [matrices * 2**level for level in range(depth)]
    # h units on rows of length d: 2 h d weights for a matrix with shorter side d, and again for each of those.
    assert deep[0].parameters == 2 * 3 * 6 + 2 * 3 * 4


def test_deep_adam_has_two_networks_side_by_side():
    system = nl.describe(default("DeepAdam", network()))
    deep = [memory for memory in system.memories if memory.model.startswith("MLP")]
    assert [memory.level for memory in deep] == [2, 2] and len(system.levels) == 2


def test_paces_are_levels():
    slow, weights, fast = nl.describe(nl.optim.M3(network().parameters(), slow_period=7)).levels
    assert [level.period for level in (slow, weights, fast)] == [7, 1, 1]
    assert [level.memories[0].name for level in (slow, weights, fast)] == ["slow", "weights", "fast"]


def test_the_period_of_a_group_is_that_of_all_its_memories():
    system = nl.describe(nl.optim.M3(network().parameters(), slow_period=3, period=4))
    assert [level.period for level in system.levels] == [12, 4, 4]
    assert system.where["u"] == "g" and "g = the sum of the gradients of 4 steps" in str(system)


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_bytes_are_known_before_the_first_step_and_words_are_said(member):
    module = network()
    optimizer = member.build(module)
    before = nl.describe(optimizer)
    for _ in range(2):
        step(module, optimizer)
    after = nl.describe(optimizer)
    assert before.state_bytes == after.state_bytes == state_bytes(optimizer)
    for part in after.everything:
        (weights,) = (memory for memory in part.memories if memory.home == "weights")
        assert weights.rule == "gradient descent" or weights.update
        assert all(memory.value and memory.rule and memory.count for memory in part.memories)
        assert "a function of" not in str(part) and "a combination of" not in str(part)
        consults = {memory.consulted_by for memory in part.memories} - {""}
        assert consults <= {memory.name for memory in part.memories}
        assert all(memory.update for memory in part.memories if memory.name in consults)
    assert NestedSystem.from_dict(json.loads(after.to_json())) == after
    assert sum(part.memories[0].count for part in after.everything) >= 1
    assert after.parameters == sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_bytes_in_other_precisions(dtype):
    module = network().to(dtype)
    optimizer = nl.optim.DeepMomentum(module.parameters(), hidden=3, levels=2, period=2)
    before = nl.describe(optimizer)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert before.state_bytes == nl.describe(optimizer).state_bytes == state_bytes(optimizer)


def test_nothing_is_allocated_on_the_meta_device():
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(1 << 16, 1 << 14), nn.Linear(1 << 14, 1 << 14))
    optimizer = nl.optim.DeepMomentum(module.parameters(), hidden=1)
    system = nl.describe(optimizer, module)
    assert not optimizer.state and system.state_bytes > 10 * 2**30
    entries = sum(parameter.numel() for parameter in module.parameters())
    assert system.parameters == entries


def test_the_surprise_is_that_of_the_state():
    module = network()
    optimizer = nl.optim.DeepMomentum(module.parameters(), hidden=3, levels=2)
    assert all(memory.surprise is None for memory in nl.describe(optimizer).memories)
    step(module, optimizer)
    found = {memory.name: memory.surprise for memory in nl.describe(optimizer).memories}
    assert found["momentum"] == pytest.approx(optimizer.surprise["momentum"].item())
    writers = [optimizer.surprise[f"momentum.rule.{name}.momentum"].item() for name in ("inner", "outer")]
    assert found["momentum.momentum"] == pytest.approx(sum(writers) / 2)
    assert found["weights"] is None and found["skip"] is None


def test_what_has_not_been_written_has_no_surprise():
    module = network()
    optimizer = nl.optim.DeepMomentum(module.parameters(), hidden=3, period=2)
    step(module, optimizer)
    assert {memory.name: memory.surprise for memory in nl.describe(optimizer).memories}["momentum"] is None
    step(module, optimizer)
    assert {memory.name: memory.surprise for memory in nl.describe(optimizer).memories}["momentum"] is not None


def test_matrices_and_vectors_are_two_systems_that_count_each_weight_once():
    system = nl.describe(nl.optim.Muon(network().parameters(), elementwise_lr=0.5, weight_decay=0.1))
    matrices, vectors = system.everything
    assert [part.memories[0].parameters for part in (matrices, vectors)] == [100, 14]
    assert matrices.covers == "2 matrices, 100 entries" and vectors.covers == "2 vectors, 14 entries"
    assert vectors.memories[0].lr == "elementwise_lr" and vectors.settings[0]["elementwise_lr"] == 0.5
    assert matrices.memories[0].retention == "1 - lr * weight_decay"


def test_a_rule_of_ones_own_is_described_too():
    class Mine(nl.optim.Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, lr, {})

        def element_rule(self, group):
            box = nl.memory.boxes.sum_box("trace", 0.5)
            return nl.memory.Consult(memories=lambda shape: (box,), combine=lambda scene: scene.answers["trace"])

    system = nl.describe(Mine(network().parameters()))
    assert system.known and [memory.name for memory in system.memories] == ["weights", "trace"]
    assert system.memories[1].retention == "0.5" and system.memories[1].value == "u"
    assert system.memories[0].update == "a combination of their answers"  # nobody has said which


def test_controls_have_fewer_memories():
    for name in ("DeepMomentum", "DeepAdam", "SecantMomentum", "LayerMomentum"):
        whole, control = (nl.describe(default(name, network(), memory=memory)) for memory in (True, False))
        assert len(control.memories) < len(whole.memories)


def test_a_curvature_target_is_said_to_need_the_graph():
    system = nl.describe(nl.optim.DeepMomentum(network().parameters(), target="hessian", target_period=5))
    assert "closure" in system.notes[0]
    assert {memory.name: memory.period for memory in system.memories}["curvature"] == 5


def test_what_is_measured_is_explained():
    weight = nn.Parameter(torch.ones(3, 2))
    curved = nl.describe(nl.optim.PreconditionedMomentum([weight], target="hessian"))
    assert "seen_hessian_diagonal = z * (H z) with random signs z" in " ".join(str(curved).split())
    assert "seen_" not in str(nl.describe(nl.optim.Momentum([weight])))
    links = [link for rule in RULES.values() for link in rule.everything()]
    names = {name for link in links for name in link.reads if name != "weights"}
    names |= {kind.observation for kind in nl.targets.TARGETS.values() if kind.observation}
    assert {f"seen_{name}" for name in names} == set(MEASURED)


def test_a_look_ahead_is_said_with_both_of_its_shares():
    weight = nn.Parameter(torch.ones(3, 2))
    ahead = nl.describe(nl.optim.SecantMomentum([weight], retention=0.75, nesterov=True))
    assert re.search(r"0\.25 \* u \+ 0\.75 \* \(mix\(u, momentum, .*\) \+ secant\)", ahead.memories[0].update)
    assert "0.25 * u + 0.75 * momentum" in nl.describe(nl.optim.Muon([weight], retention=0.75)).memories[0].update


def test_the_skip_path_is_said_as_it_was_only_where_the_answer_comes_late():
    weight = nn.Parameter(torch.ones(3, 2))
    said = {
        (objective, memory): nl.describe(
            nl.optim.DeepMomentum([weight], objective=objective, memory=memory, retention=0.9)
        )
        for objective in ("l2", "hypergradient", "quadratic")
        for memory in (True, False)
    }
    updates = {key: system.memories[0].update.partition("newton_schulz")[2] for key, system in said.items()}
    assert updates == {
        ("l2", True): "(as_matrix(unit_rows(skip) + momentum, u))",
        ("l2", False): "(as_matrix(unit_rows(skip), u))",
        ("hypergradient", True): "(as_matrix(unit_rows(0.2 * u + 0.8 * past_skip) + momentum, u))",
        ("hypergradient", False): "(as_matrix(unit_rows(skip), u))",
        ("quadratic", True): "(norm(u) / sqrt(rows(momentum)) * as_matrix(momentum, u))",
        ("quadratic", False): "(as_matrix(unit_rows(u), u))",
    }
