"""``nestlearn check`` asks the hosts that are installed, each in a process of its own."""

from __future__ import annotations

import pytest

from nestlearn.check import check

from .common import accelerate, transformers

HOSTS = ["accelerate", "transformers-trainer"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch.optim:AdamW", "nestlearn.optim:LayerMomentum"])
def test_sound_optimizers_pass_in_hosts(name: str) -> None:
    assert accelerate is not None and transformers is not None
    report = check(name, only=HOSTS)
    assert {outcome.name: outcome.status for outcome in report.outcomes} == dict.fromkeys(HOSTS, "passed"), str(report)
