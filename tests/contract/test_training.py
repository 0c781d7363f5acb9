"""Defaults train: every member, as constructed, halves the loss of a small regression in 50 steps."""

from __future__ import annotations

import pytest
import torch

from .members import EVERY, Member
from .problems import advance, network


@pytest.mark.slow
@pytest.mark.parametrize(**EVERY)
def test_defaults_train(member: Member) -> None:
    torch.manual_seed(0)
    student, teacher = network(torch.float32, (16, 48, 4), seed=3), network(torch.float32, (16, 4), seed=4)
    inputs = torch.randn(64, 16, generator=torch.Generator().manual_seed(5))
    targets = teacher(inputs).detach()
    losses = advance(member, member.build(student), [lambda: (student(inputs) - targets).square().mean()] * 50)
    final = (student(inputs) - targets).square().mean().item()
    assert final <= 0.5 * losses[0], (losses[0], final)
