"""Results on their way to a file and back, those of older versions too."""

import json

import pytest
from made_up_runs import row
from pydantic import ValidationError

from nestlearn.training import Point, Results
from nestlearn.training.results import Difference, Sample, Trial

FULL = Results(
    baseline="AdamW",
    muon="Muon",
    budget=6,
    warnings=("digits, Muon: at an edge",),
    tasks={"digits": (row("Muon", "a", "b"),)},
)


def test_a_point_is_read_by_name_and_by_place() -> None:
    point = Point(3, 0.5, 1.25)
    step, seconds, loss = point
    assert (point.step, point.seconds, point.loss) == (step, seconds, loss) == (3, 0.5, 1.25)


def test_results_come_back_as_they_were_written() -> None:
    assert Results.from_plain(json.loads(json.dumps(FULL.to_plain()))) == FULL


def old_row(**changes: object) -> dict:
    """A row as version 0.1 wrote it, with what is nested in it."""
    loss = {"mean": 1.5, "spread": 0.5, "values": [1.0, 2.0]}
    against = {"mean": -0.5, "spread": 0.1, "values": [-0.4, -0.6], "interval": [-1, 0.2], "p_alone": 0.04, "p": 0.08}
    return {
        "name": "Muon", "contender": "Muon", "control": False, "family": "orthogonal", "equation": "O10", "about": "",
        "status": "finished", "reason": "", "settings": {"lr": 0.1}, "fixed": {}, "edges": [], "warnings": [],
        "grid": {"lr": [0.1, 0.3]}, "trials": [{"settings": {"lr": 0.3}, "status": "diverged", "loss": None}],
        "trials_count": 1, "diverged_trials": 1, "validation": {"loss": loss}, "test": {"loss": loss},
        "interval": [1.0, 2.0], "step_ms": 1, "optimizer_ms": 0.5, "state_bytes": 8, "parameters": 2, "runs": ["a"],
        "equal_time": None, "equal_bytes": None, "spec": {"task": "digits"}, "control_name": None, "control_is": "",
        "to_target": {"target": 1.5, "steps": None, "seconds": None, "reached": 0, "of": 2},
        "against_control": {**against, "significant": False}, "against_baseline": None, "against_muon": None, **changes,
    }  # fmt: skip


def test_lists_and_mappings_become_what_they_stand_for() -> None:
    plain = {"baseline": "AdamW", "muon": "Muon", "warnings": [], "tasks": {"digits": [old_row(of_another_version=3)]}}
    (found,) = Results.from_plain(plain).tasks["digits"]
    assert found.test["loss"] == Sample(1.5, 0.5, (1.0, 2.0)) and found.interval == (1.0, 2.0)
    assert found.trials == (Trial({"lr": 0.3}, "diverged", None),) and found.grid == {"lr": (0.1, 0.3)}
    assert found.against_control == Difference(-0.5, 0.1, (-0.4, -0.6), (-1.0, 0.2), 0.04, 0.08, False)
    assert found.to_target.steps is None and found.to_target.of == 2


def test_what_is_no_row_says_where() -> None:
    plain = {"baseline": "AdamW", "muon": "Muon", "tasks": {"digits": [old_row(state_bytes="many")]}}
    with pytest.raises(ValidationError, match=r"tasks\.digits\.0\.state_bytes"):
        Results.from_plain(plain)
