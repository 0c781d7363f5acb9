"""``nestlearn train --fork``: what a user types, and what is said."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from trained_hope import nestlearn

call = partial(nestlearn, "train")


def test_a_fork_goes_on_with_other_settings_and_says_what_it_left(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = ["--task", "tiny_task:lines", "--optimizer", "Muon", "--steps", 12, "--checkpoint-every", 4, "--quiet"]
    assert call(*one, "--out", "parent").exit_code == 0
    fork = ["--import", "tiny_task", "--fork", "parent@8", "--out", "off", "--quiet"]
    told = call(*fork, "--without", "momentum", "--lr", 0.01)
    assert told.exit_code == 0 and told.stdout == "off/report.html\n"
    assert "note: forked from step 8 of parent; optimizer.lr: was 0.052, now 0.01" in told.stderr
    assert "note: left behind: momentum.model.value (2)" in told.stderr
    rows = [json.loads(line) for line in Path("off/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 13))
    more = call(*fork[:2], "--fork", "off@8", "--out", "more", "--quiet", "--without", "orthogonal")
    assert "optimizer.without: was momentum, now momentum,orthogonal" in more.stderr and more.exit_code == 0
    assert "already holds a run" in call(*fork).stderr
    assert "either --fork or --resume" in call(*fork, "--resume", "off").stderr
