"""Broken gradients are refused before anything changes, and mixed-precision scaling works."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from .members import EVERY, MEMBERS, OPEN, Member, over
from .problems import advance, assert_equal, network, regression, snapshot

FACTORING = ("LayerMomentum", "Nested", "SOAP", "SOAPMuon")
UNFACTORED = over(
    member
    for member in MEMBERS
    if not member.closure and member.name not in FACTORING and member.settings.get("target") != "kronecker"
)
"""Members whose read-outs factor no matrix: a factorisation may refuse NaN by itself."""


def poison(module: nn.Module, value: float) -> None:
    """Put `value` into one entry of the gradient of the second layer's weight, [3, 8]."""
    module[2].weight.grad[1, 2] = value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(**OPEN)
def test_a_broken_gradient_is_named_and_changes_nothing(member: Member, value: float) -> None:
    module = network(torch.float32)
    optimizer = member.build(module, module.named_parameters())
    advance(member, optimizer, regression(module, range(2)))
    optimizer.zero_grad()
    regression(module, [2])[0]().backward()
    poison(module, value)
    before = snapshot(optimizer)
    with pytest.raises(FloatingPointError, match=r"2\.weight.*3\D+8|3\D+8.*2\.weight"):
        optimizer.step()
    assert_equal(snapshot(optimizer), before)
    optimizer.zero_grad()
    fresh = snapshot(optimizer)
    advance(member, optimizer, regression(module, [3]))
    assert any(not torch.equal(fresh[key], value) for key, value in snapshot(optimizer).items())


@pytest.mark.parametrize(**EVERY)
def test_a_broken_gradient_without_names_is_found_by_its_shape(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module)

    def closure() -> torch.Tensor:
        loss = regression(module, [0])[0]()
        loss.backward(retain_graph=member.closure)
        poison(module, float("nan"))
        return loss

    before = snapshot(optimizer)
    with pytest.raises(FloatingPointError, match=r"3\D+8"):
        optimizer.step(closure)
    after = snapshot(optimizer)
    assert_equal({key: after[key] for key in before}, before)
    assert all(len(state) == 0 or int(state.get("step", 0)) == 0 for state in optimizer.state.values())


@pytest.mark.parametrize(**OPEN)
def test_a_broken_gradient_inside_a_period_is_refused_too(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module, period=3)
    advance(member, optimizer, regression(module, [0]))
    regression(module, [1])[0]().backward()
    poison(module, float("nan"))
    before = snapshot(optimizer)
    with pytest.raises(FloatingPointError):
        optimizer.step()
    assert_equal(snapshot(optimizer), before)


@pytest.mark.parametrize(**UNFACTORED)
def test_ignoring_broken_gradients_is_a_choice(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module, nonfinite="ignore")
    regression(module, [0])[0]().backward()
    poison(module, float("nan"))
    with pytest.warns(RuntimeWarning, match="not finite"):
        optimizer.step()
    assert module[2].weight.isnan().any()


@pytest.mark.parametrize(**OPEN)
def test_the_scaler_skips_an_overflow(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(2)))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer.zero_grad()
    scaler.scale(regression(module, [2])[0]()).backward()
    poison(module, float("inf"))
    before = snapshot(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert_equal(snapshot(optimizer), before)
    assert scaler.get_scale() == 512.0


@pytest.mark.parametrize(**OPEN)
def test_the_scaler_changes_no_result(member: Member) -> None:
    """Powers of two scale exactly, also what reads error signals through the layers."""
    ends = []
    for scale in (None, 1024.0):
        module = network(torch.float32)
        optimizer = member.build(module)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for loss in regression(module, range(3)):
            optimizer.zero_grad()
            scaler.scale(loss()).backward()
            scaler.step(optimizer)
            scaler.update()
        ends.append([parameter.detach().clone() for parameter in module.parameters()])
    for plain, scaled in zip(*ends, strict=True):
        torch.testing.assert_close(scaled, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scaled", [False, True], ids=["refused", "skipped"])
@pytest.mark.parametrize(**OPEN)
def test_a_dropped_batch_leaves_no_trace(member: Member, scaled: bool) -> None:
    """After a refused step or one the scaler skipped, training goes on as if that batch had never come."""
    ends = []
    for broken in (False, True):
        module = network()
        optimizer = member.build(module)
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0, enabled=scaled)
        for index, loss in enumerate(regression(module, range(4))):
            if broken and index == 2:
                optimizer.zero_grad()
                scaler.scale(regression(module, [9], factor=float("inf"))[0]()).backward()
                if scaled:
                    scaler.step(optimizer)
                    scaler.update()
                else:
                    with pytest.raises(FloatingPointError):
                        optimizer.step()
            optimizer.zero_grad()
            scaler.scale(loss()).backward()
            scaler.step(optimizer)
            scaler.update()
        ends.append([parameter.detach().clone() for parameter in module.parameters()])
    for plain, survived in zip(*ends, strict=True):
        torch.testing.assert_close(survived, plain, rtol=1e-9, atol=1e-11)
