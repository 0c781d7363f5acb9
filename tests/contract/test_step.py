"""What one call of `step` does and leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR, StepLR
from torch.utils._python_dispatch import TorchDispatchMode

from .members import EVERY, MEMBERS, OPEN, Member, over
from .problems import advance, assert_close, assert_equal, flat_state, network, regression, snapshot

LINEAR = over(member for member in MEMBERS if member.linear)
RESTING = over(member for member in MEMBERS if member.rests)


def displacement(member: Member, **overrides: object) -> list[Tensor]:
    """How the first step on batch 0 moves each parameter."""
    module = network()
    start = [parameter.detach().clone() for parameter in module.parameters()]
    advance(member, member.build(module, **overrides), regression(module, [0]))
    return [p.detach() - old for p, old in zip(module.parameters(), start, strict=True)]


@pytest.mark.parametrize(**EVERY)
def test_zero_lr_moves_nothing(member: Member) -> None:
    module = network(torch.float32)
    start = [parameter.detach().clone() for parameter in module.parameters()]
    advance(member, member.build(module, lr=0.0, weight_decay=0.1), regression(module, range(3)))
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), start, strict=True))


@pytest.mark.parametrize(**EVERY)
def test_every_parameter_moves(member: Member) -> None:
    assert all(move.abs().max() > 0 for move in displacement(member))


@pytest.mark.parametrize(**RESTING)
def test_zero_gradient_on_a_fresh_optimizer_moves_nothing(member: Member) -> None:
    module = network(torch.float32)
    start = [parameter.detach().clone() for parameter in module.parameters()]
    advance(member, member.build(module), regression(module, range(3), factor=0.0))
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), start, strict=True))


@pytest.mark.parametrize(**RESTING)
def test_weight_decay_is_decoupled(member: Member) -> None:
    module = network()
    start = [parameter.detach().clone() for parameter in module.parameters()]
    advance(member, member.build(module, lr=0.125, weight_decay=0.5), regression(module, [0], factor=0.0))
    for parameter, old in zip(module.parameters(), start, strict=True):
        torch.testing.assert_close(parameter.detach(), old * (1 - 0.125 * 0.5), rtol=1e-14, atol=0)


@pytest.mark.parametrize(**EVERY)
def test_weight_decay_does_not_change_the_update(member: Member) -> None:
    plain = displacement(member, lr=0.01)
    decayed = displacement(member, lr=0.01, weight_decay=0.5)
    for one, two, parameter in zip(plain, decayed, network().parameters(), strict=True):
        torch.testing.assert_close(two - one, -0.01 * 0.5 * parameter.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(**EVERY)
def test_gradients_are_never_touched(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module)
    for index in range(3):
        kept: list[tuple[Tensor, Tensor]] = []

        def closure(index: int = index, kept: list[tuple[Tensor, Tensor]] = kept) -> Tensor:
            optimizer.zero_grad()
            loss = regression(module, [index])[0]()
            loss.backward(retain_graph=member.closure)
            kept[:] = [(p.grad, p.grad.clone()) for p in module.parameters()]
            return loss

        optimizer.step(closure)
        for parameter, (grad, copy) in zip(module.parameters(), kept, strict=True):
            assert parameter.grad is grad
            assert torch.equal(grad, copy)


@pytest.mark.parametrize(**EVERY)
def test_step_returns_the_loss_and_enables_gradients_for_the_closure(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module)
    losses: list[Tensor] = []

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        losses.append(regression(module, [0])[0]())
        losses[-1].backward(retain_graph=True)
        return losses[-1]

    with torch.no_grad():
        returned = optimizer.step(closure)
    assert len(losses) == 1
    assert returned.item() == losses[0].item()


@pytest.mark.parametrize(**OPEN)
def test_step_without_closure_returns_none(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module)
    regression(module, [0])[0]().backward()
    assert optimizer.step() is None


@pytest.mark.parametrize(**EVERY)
def test_parameters_stay_leaves(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(2)))
    assert all(p.is_leaf and p.requires_grad and p.grad_fn is None for p in module.parameters())


@pytest.mark.parametrize(**EVERY)
def test_step_hooks_fire(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module)
    calls: list[str] = []
    before = optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    advance(member, optimizer, regression(module, range(2)))
    before.remove()
    advance(member, optimizer, regression(module, range(1)))
    assert calls == ["before", "after", "before", "after", "after"]


@pytest.mark.parametrize(**EVERY)
def test_a_scheduler_sets_the_learning_rate(member: Member) -> None:
    """StepLR with factor 0 stops every movement after the first step."""
    module = network(torch.float32)
    optimizer = member.build(module)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.0)
    advance(member, optimizer, regression(module, [0]))
    scheduler.step()
    stopped = [parameter.detach().clone() for parameter in module.parameters()]
    advance(member, optimizer, regression(module, [1, 2]))
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), stopped, strict=True))


@pytest.mark.parametrize(**EVERY)
def test_one_cycle_drives_the_optimizer(member: Member) -> None:
    cycle = "betas" in member.build(network()).defaults
    moves = []
    for peak in (0.0, 0.02):
        module = network(torch.float32)
        start = [parameter.detach().clone() for parameter in module.parameters()]
        optimizer = member.build(module)
        scheduler = OneCycleLR(optimizer, max_lr=peak, total_steps=4, cycle_momentum=cycle)
        for index in range(3):
            advance(member, optimizer, regression(module, [index]))
            scheduler.step()
        moves.append(max((p - old).abs().max().item() for p, old in zip(module.parameters(), start, strict=True)))
    assert moves[0] == 0.0
    assert moves[1] > 0.0


@pytest.mark.parametrize(**LINEAR)
def test_the_first_displacement_is_proportional_to_lr(member: Member) -> None:
    for one, two in zip(displacement(member, lr=0.01), displacement(member, lr=0.02), strict=True):
        torch.testing.assert_close(2 * one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(**EVERY)
def test_a_tensor_lr_equals_a_float(member: Member) -> None:
    modules = []
    for lr in (0.015625, torch.tensor(0.015625)):
        module = network()
        advance(member, member.build(module, lr=lr), regression(module, range(4)))
        modules.append(module)
    assert_close(*modules)


@pytest.mark.parametrize(**EVERY)
def test_maximize_climbs_what_minimising_the_negation_descends(member: Member) -> None:
    modules = []
    for maximize, factor in ((False, 1.0), (True, -1.0)):
        module = network()
        optimizer = member.build(module, maximize=maximize)
        advance(member, optimizer, regression(module, range(5), factor))
        modules.append(module)
    assert_close(*modules)


@pytest.mark.parametrize(**EVERY)
def test_the_global_random_state_is_not_consumed(member: Member) -> None:
    module = network(torch.float32)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(3)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(**EVERY)
def test_a_run_repeats_bit_for_bit(member: Member) -> None:
    ends = []
    for _ in range(2):
        torch.manual_seed(11)
        module = network(torch.float32)
        optimizer = member.build(module)
        advance(member, optimizer, regression(module, range(4)))
        ends.append(snapshot(optimizer))
    assert_equal(*ends)


class Reads(TorchDispatchMode):
    """Counts reads of a tensor's value by Python, except reads of clocks that live on the CPU."""

    def __init__(self, clocks: set[int]) -> None:
        super().__init__()
        self.clocks = clocks
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.aten._local_scalar_dense.default and args[0].data_ptr() not in self.clocks:
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(**OPEN)
def test_a_step_reads_no_more_values_for_more_parameters(member: Member) -> None:
    """Each read stalls a GPU: at most two a step, however many parameters of however many shapes."""
    counts = []
    for widths in ((4, 4, 4), (4, 4, 5, 6, 7, 8, 3)):
        module = network(torch.float32, widths)
        optimizer = member.build(module)
        advance(member, optimizer, regression(module, range(2)))
        regression(module, [2])[0]().backward()
        clocks = {state["step"].data_ptr() for state in flat_state(optimizer) if state["step"].device.type == "cpu"}
        with Reads(clocks) as reads:
            optimizer.step()
        counts.append(reads.count)
    assert max(counts) <= 2, counts
