"""Rules that consult memories: named optimizers as compositions, and nesting without limit (O2-O8)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nestlearn.memory import (
    AssociativeMemory,
    Constant,
    Consult,
    Consulted,
    Context,
    GradientDescent,
    Matrix,
    Rule,
    Scene,
    dot_product,
    l2,
)

STEPS = 60


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def box(objective: Any, lr: float, retention: float = 1.0) -> AssociativeMemory:
    return AssociativeMemory(Constant(), objective, GradientDescent(lr=lr, retention=retention))


def follow(rule: Rule, optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter, lr: float) -> None:
    """The same loss, walked by a memory with this rule and by one of torch's optimizers."""
    memory = AssociativeMemory(Matrix(4, 3), dot_product, rule)
    state = memory.init(dtype=torch.float64)
    state["model"]["weight"] = weight.detach().clone()
    for time in range(STEPS):
        key, target = 0.3 * draw(5, 4), draw(5, 3)
        optimizer.zero_grad()
        answer = key @ weight.T
        answer.retain_grad()
        (answer - target).cosh().mean().backward()
        optimizer.step()
        # The memory is told its error signal at its own answer, which must be where the weight was.
        own = memory.read(state, key).requires_grad_()
        (error,) = torch.autograd.grad((own - target).cosh().mean(), own)
        torch.testing.assert_close(error, answer.grad, rtol=1e-9, atol=1e-9)
        state, _ = memory.write(state, key, -error, time=time, lr=lr)
    torch.testing.assert_close(state["model"]["weight"], weight.detach(), rtol=1e-9, atol=1e-9)


def test_sgd_with_momentum_consults_a_box_with_the_dot_product() -> None:
    """O2: M <- alpha M + u."""
    momentum = Consulted("momentum", box(dot_product, 1.0, 0.9))
    rule = Consult(memories=lambda shape: (momentum,), combine=lambda scene: scene.answers["momentum"])
    weight = torch.nn.Parameter(draw(3, 4))
    follow(rule, torch.optim.SGD([weight], lr=0.05, momentum=0.9), weight, 0.05)


def test_adam_consults_two_boxes_with_l2() -> None:
    """O7: M and V read the same gradient side by side, one rule consults both."""
    first, second, eps = 0.9, 0.99, 1e-6
    memories = (
        Consulted("m", box(l2, 1 - first)),
        Consulted("v", box(l2, 1 - second), value=lambda scene: scene.gradient.square()),
    )

    def combine(scene: Scene) -> Tensor:
        step = scene.time + 1
        m, v = scene.answers["m"] / (1 - first**step), scene.answers["v"] / (1 - second**step)
        return m / (v.sqrt() + eps)

    rule = Consult(memories=lambda shape: memories, combine=combine)
    weight = torch.nn.Parameter(draw(3, 4))
    follow(rule, torch.optim.Adam([weight], lr=0.02, betas=(first, second), eps=eps), weight, 0.02)


# ------------------------------------------------------------------------------------------------ nesting


def chain(retentions: list[float]) -> Rule:
    """Gradient descent, written through a momentum, that is written through a momentum, ..."""
    if not retentions:
        return GradientDescent()
    own, *deeper = retentions
    memory = AssociativeMemory(Constant(), dot_product, replace(chain(deeper), lr=1.0, retention=own))
    return Consult(
        memories=lambda shape: (Consulted("momentum", memory),), combine=lambda scene: scene.answers["momentum"]
    )


@pytest.mark.parametrize("retentions", [[0.9], [0.9, 0.5], [0.9, 0.5, 0.7]], ids=["depth 1", "depth 2", "depth 3"])
def test_momentum_behind_momentum_is_a_cascade_of_filters(retentions: list[float]) -> None:
    """O6 with boxes: each memory's writes pass through the next, so the gradient is filtered once a memory."""
    rule = chain(retentions)
    state = rule.init({"weight": torch.zeros(3, 2, dtype=torch.float64)})
    gradients = draw(20, 3, 2)
    updates = []
    for time, gradient in enumerate(gradients):
        update, state = rule.update(state, {"weight": gradient}, Context(time=time))
        updates.append(update["weight"])
    expected = gradients.clone()
    for retention in retentions:
        for time in range(1, 20):
            expected[time] += retention * expected[time - 1]
    torch.testing.assert_close(torch.stack(updates), expected, rtol=1e-12, atol=1e-12)


def deep_rule(depth: int) -> Rule:
    """A rule that consults a matrix memory on rows, whose rule consults one, ... each regressing on its gradient."""
    if depth == 0:
        return GradientDescent(lr=0.1, retention=0.99)
    inner = deep_rule(depth - 1)

    def memories(shape: torch.Size) -> tuple[Consulted, ...]:
        memory = AssociativeMemory(Matrix(shape[-1], shape[-1], residual=True), l2.averaged(), inner)
        return (Consulted("mapped", memory, value=lambda scene: torch.sign(scene.gradient), track=True),)

    return Consult(lr=0.1, retention=0.99, memories=memories, combine=lambda scene: scene.answers["mapped"])


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_memory_written_by_memories_to_any_depth(depth: int) -> None:
    memory = AssociativeMemory(Matrix(4, 3), l2.averaged(), deep_rule(depth))
    batch = 2
    state = memory.init((batch,), dtype=torch.float64)
    key, truth = draw(batch, 64, 4), draw(batch, 3, 4)
    value = key @ truth.mT
    surprises = []
    for time in range(80):
        state, surprise = memory.write(state, key, value, time=time)
        surprises.append(surprise)
    assert bool((surprises[-1] < 0.3 * surprises[0]).all())
    assert count(state) == depth + 1
    place = state
    for _ in range(depth):
        place = place["rule"]["weight"]["mapped"]
        assert place["surprise"].shape == (batch,)
        assert bool(place["model"]["weight"].any()), "a memory was never written"


def count(state: Any) -> int:
    """Matrix memories in a state of nested dictionaries of tensors."""
    assert isinstance(state, dict)
    total = 0
    for name, value in state.items():
        assert isinstance(value, (dict, Tensor)), f"{name} is a {type(value).__name__}"
        total += name == "model"
        total += count(value) if isinstance(value, dict) else 0
    return total


def test_depth_two_is_a_hand_written_loop() -> None:
    """Each level by the delta rule, the outer one written with what the inner one answers."""
    rule = deep_rule(2)
    state = rule.init({"weight": torch.zeros(5, 3, dtype=torch.float64)})
    eye = torch.eye(3, dtype=torch.float64)
    first, second = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for time in range(10):
        u = draw(5, 3)
        update, state = rule.update(state, {"weight": u}, Context(time=time))
        slope = (u @ (eye + first).T - torch.sign(u)).T @ u / 5
        inner_slope = (slope @ (eye + second).T - torch.sign(slope)).T @ slope / 3
        second = 0.99 * second - 0.1 * inner_slope
        first = 0.99 * first - 0.1 * slope @ (eye + second).T
        torch.testing.assert_close(update["weight"], u @ (eye + first).T, rtol=1e-12, atol=1e-12)


def test_a_nested_rule_counts_its_own_writes() -> None:
    """Behind a memory with a period, time is the number of writes, not of the keys that were collected for them."""
    times: list[Any] = []

    def combine(scene: Scene) -> Tensor:
        times.append(scene.time)
        return scene.gradient

    rule = Consult(combine=combine)
    memory = AssociativeMemory(Matrix(4, 3), l2, rule, period=3)
    state = memory.init(dtype=torch.float64)
    for time in range(10):
        state, _ = memory.write(state, draw(4), draw(3), time=time)
    assert times == [0, 1, 2]


# ----------------------------------------------------------------------------------------- what may be asked


def sums(**options: Any) -> Consulted:
    return Consulted("sum", box(dot_product, 1.0), **options)


def answers(member: Consulted, gradients: Tensor) -> Tensor:
    state, found = member.init(gradients[0]), []
    for time, gradient in enumerate(gradients):
        answer, state = member.consult(state, Scene(gradient, time=time))
        found.append(answer)
    return torch.stack(found)


def test_fresh_is_read_after_the_write_and_stale_before_it() -> None:
    gradients = draw(6, 2, 3)
    total = gradients.cumsum(0)
    torch.testing.assert_close(answers(sums(), gradients), total)
    torch.testing.assert_close(answers(sums(fresh=False), gradients), total - gradients)


def test_a_pair_is_shown_at_every_second_write_only() -> None:
    gradients = draw(6, 2, 3)
    seen = gradients.clone()
    seen[1::2] = 0
    torch.testing.assert_close(answers(sums(every=2), gradients), seen.cumsum(0))


@pytest.mark.parametrize("options", [{"every": 3}, {}], ids=["every", "period"])
def test_a_kept_answer_is_read_out_only_when_the_memory_has_changed(options: dict[str, Any]) -> None:
    calls: list[int] = []

    def readout(answer: Tensor, scene: Scene) -> Tensor:
        calls.append(int(scene.time or 0))
        return 2 * answer

    memory = box(dot_product, 1.0)
    if not options:
        memory = AssociativeMemory(Constant(), dot_product, GradientDescent(), period=3)
    member = Consulted("slow", memory, readout=readout, keep_answer=torch.ones_like, **options)
    found = answers(member, draw(7, 2, 3))
    if options:  # written with the first of every three
        assert calls == [0, 3, 6]
        assert torch.equal(found[0], found[2])
    else:  # written with the last of every three, and what was given at the start until then
        assert calls == [2, 5]
        assert torch.equal(found[:2], torch.ones(2, 2, 3, dtype=torch.float64))
        assert torch.equal(found[2], found[4])
        assert not torch.equal(found[4], found[5])


def test_a_scene_computes_shared_values_once() -> None:
    scene, calls = Scene(draw(2, 2)), []
    for _ in range(3):
        scene.once("norm", lambda scene: calls.append(1) or scene.gradient.norm())  # type: ignore[func-returns-value]
    assert len(calls) == 1


def test_later_memories_see_the_answers_of_earlier_ones() -> None:
    first = sums()
    second = Consulted("twice", box(dot_product, 1.0), value=lambda scene: scene.answers["sum"])
    rule = Consult(memories=lambda shape: (first, second), combine=lambda scene: scene.answers["twice"])
    state = rule.init({"weight": torch.zeros(2, dtype=torch.float64)})
    gradients = draw(5, 2)
    for time, gradient in enumerate(gradients):
        update, state = rule.update(state, {"weight": gradient}, Context(time=time))
    torch.testing.assert_close(update["weight"], gradients.cumsum(0).sum(0))


def test_impossible_rhythms_are_refused() -> None:
    with pytest.raises(ValueError, match="'sum': every must be at least 1, got 0"):
        sums(every=0)
    slow = AssociativeMemory(Constant(), dot_product, GradientDescent(), period=2)
    with pytest.raises(ValueError, match=r"'slow'.*not both"):
        Consulted("slow", slow, every=2)
    with pytest.raises(ValueError, match=r"'sum' acts once in 2 writes.*time as an int, got None"):
        sums(every=2).consult(sums(every=2).init(draw(2)), Scene(draw(2)))


def test_a_state_is_left_as_it_was_unless_it_may_be_overwritten() -> None:
    for scene, kept in ((Scene(draw(3)), True), (Scene(draw(3), inplace=True), False)):
        member = Consulted("average", box(l2, 0.5))
        state = member.init(torch.zeros(3, dtype=torch.float64))
        member.consult(state, scene)
        assert bool((state["model"]["value"] == 0).all()) is kept
