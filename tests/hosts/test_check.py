"""``nestlearn check`` asks the hosts that are installed, each in a process of its own."""

from __future__ import annotations

import pytest
from needed import needs

from nestlearn.check import check

HOSTS = ["accelerate", "transformers-trainer", "lightning"]


@pytest.mark.slow
def test_a_sound_optimizer_passes_in_hosts() -> None:
    needs("accelerate", "transformers", "lightning")
    report = check("nestlearn.optim:LayerMomentum", only=HOSTS)
    assert {outcome.name: outcome.status for outcome in report.outcomes} == dict.fromkeys(HOSTS, "passed"), str(report)
