"""Checks in other processes: two ranks, and what becomes of one that hangs, dies, or cannot be had."""

from __future__ import annotations

import sys

import pytest

from nestlearn.check import check

from . import broken


@pytest.mark.slow
def test_faults_of_ranks_are_found_and_the_others_go_on():
    names = ["ddp", "fsdp2", "fsdp2-uneven", "same-keys"]
    report = check(broken.Troubled, only=names, patience=10)
    found = {outcome.name: (outcome.status, outcome.message) for outcome in report.outcomes}
    assert found["same-keys"] == ("passed", "")
    assert found["ddp"][0] == found["fsdp2"][0] == found["fsdp2-uneven"][0] == "failed"
    assert "rank 0: the ranks' weights differ by" in found["ddp"][1]
    assert "rank 1 ended with 7" in found["fsdp2"][1]
    assert "rank 1 did not come to an end in 10 s" in found["fsdp2-uneven"][1]


@pytest.mark.slow
def test_an_optimizer_without_fault_passes_on_two_ranks():
    from nestlearn.check import CHECKS

    report = check(broken.Sound, only=[name for name, each in CHECKS.items() if each.where == "two ranks"])
    assert report.score == 1.0, str(report)


@pytest.mark.slow
def test_a_check_that_ends_its_process_is_a_failure_of_it_alone():
    report = check(broken.Leaves, only=["learns", "order"], isolated=True, patience=30)
    found = {outcome.name: outcome.message for outcome in report.of("failed")}
    assert found == {"learns": "the process ended with 9: it has had enough"}


def test_what_no_other_process_can_import_is_not_sent_to_one(monkeypatch):
    class Here(broken.Sound):
        pass

    report = check(Here, only=["ddp"])
    assert "cannot be sent to another process" in report.outcomes[0].message
    monkeypatch.setattr(Here, "__module__", "__main__")
    report = check(Here, only=["ddp"])
    assert report.score is None and "put it into a module" in report.outcomes[0].message
    assert "no check applies" in str(report) and sys.modules["__main__"] is not None
