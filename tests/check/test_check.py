"""The tool itself: what it finds of torch's optimizers and ours, its report, and what it is given."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from nestlearn import optim
from nestlearn.check import CHECKS, NotApplicable, check
from nestlearn.check.outcome import FAILED, NOT_APPLICABLE, PASSED, tried
from nestlearn.check.prepared import prepared
from nestlearn.check.subject import Subject
from nestlearn.check.training import Run, agree, noise
from nestlearn.errors import SettingsError

from . import broken

FEW = ["order", "round-trip", "maximize", "no-gradients"]


def statuses(report):
    return {outcome.name: outcome.status for outcome in report.outcomes}


@pytest.mark.slow
def test_adamw_of_torch_passes_all_but_the_broken_gradient():
    report = check(torch.optim.AdamW, hosts=False, ranks=False)
    assert [outcome.name for outcome in report.of("failed")] == ["nonfinite"], str(report)
    assert report.score == report.passed / (report.passed + 1) and report.passed > 50


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DeepMomentum", "DeltaGradientDescent", "LayerMomentum", "Nested"])
def test_ours_pass_everything(name):
    report = check(f"nestlearn.optim:{name}", hosts=False, ranks=False)
    assert report.score == 1.0, str(report)


def test_every_check_has_a_sentence_and_a_place():
    assert all(each.sentence.endswith(".") and len(each.sentence) < 140 for each in CHECKS.values())
    assert {each.where for each in CHECKS.values()} == {"one process", "other libraries", "two ranks"}


def test_only_the_named_checks_run():
    assert statuses(check(torch.optim.SGD, only=FEW)) == dict.fromkeys(sorted(FEW, key=list(CHECKS).index), PASSED)


def test_settings_reach_the_optimizer():
    assert check(torch.optim.SGD, {"lr": 0.0}, only=["learns"]).failed == 1


def test_a_name_is_imported_and_kept():
    report = check("torch.optim:SGD", {"lr": 0.1}, only=["order"])
    assert (report.optimizer, report.score) == ("torch.optim:SGD", 1.0)
    assert report.reproduce("order") == "nestlearn check torch.optim:SGD --set lr=0.1 --only order"


def test_a_function_that_makes_an_optimizer_is_taken():
    assert check(lambda params, **settings: torch.optim.SGD(params, **settings), only=["order"]).score == 1.0
    report = check(partial(torch.optim.SGD, momentum=0.9), {"lr": 0.1}, only=["round-trip"])
    assert report.score == 1.0
    assert report.reproduce("round-trip").startswith("check(functools.partial(<class 'torch.optim.sgd.SGD'>")
    assert report.reproduce("round-trip").endswith("{'lr': 0.1}, only=['round-trip'])")


@pytest.mark.parametrize(
    ("optimizer", "settings", "message"),
    [
        ("torch.optim:AdamV", {}, "no function 'AdamV' for the optimizer"),
        ("torch.optin:AdamW", {}, "no module 'torch.optin'"),
        (torch.optim.AdamW, {"hiden": 3}, "cannot be made of the parameters of a network"),
        (torch.nn.Linear, {}, "cannot be made of the parameters of a network"),
        (lambda params: 3, {}, "to make an optimizer, got int"),
    ],
)
def test_what_is_no_optimizer_is_refused(optimizer, settings, message):
    with pytest.raises(SettingsError, match=message):
        check(optimizer, settings, only=["order"])


def test_a_check_that_is_not_there_is_refused():
    with pytest.raises(SettingsError, match="Did you mean 'order'"):
        check(torch.optim.SGD, only=["ordr"])


def test_what_an_optimizer_needs_is_found():
    def of(make, **more):
        return prepared(Subject(make, "it", **more))

    assert not of(torch.optim.AdamW).closure and not of(torch.optim.AdamW).matrices
    assert of(torch.optim.LBFGS).closure
    assert of(torch.optim.Muon).matrices
    assert of(optim.LayerMomentum).model and not of(optim.SecantMomentum).model
    assert of(partial(optim.DeepMomentum, objective="quadratic"), graph=True).closure


def test_curvature_is_checked_with_a_graph():
    report = check(optim.DeepMomentum, {"objective": "quadratic", "hidden": 4}, graph=True, only=FEW)
    assert statuses(report) == {**dict.fromkeys(FEW, PASSED), "no-gradients": NOT_APPLICABLE}
    assert "--graph --only order" in report.reproduce("order")


def test_an_optimizer_without_vectors_fails_what_is_about_them():
    report = check(torch.optim.Muon, only=["whole-model", "round-trip"])
    assert statuses(report) == {"whole-model": FAILED, "round-trip": PASSED}


def test_an_optimizer_without_float64_fails_that_alone():
    report = check(broken.NoFloat64, only=["double-precision", "round-trip", "order"])
    assert statuses(report) == {"double-precision": FAILED, "round-trip": PASSED, "order": PASSED}


def test_room_for_rounding_is_measured():
    plain = Subject(torch.optim.SGD, "plain")
    assert noise(plain) < 1e-14
    rough = Subject(broken.Rough, "rough")
    assert 1e-6 < noise(rough) < 1e-2
    runs = [Run(subject).steps().weights() for subject in (plain, rough)]
    agree(plain, runs[0], [weight + 1e-10 for weight in runs[0]], "they")
    with pytest.raises(AssertionError, match=r"they differ by 1\.0e-07; rounding explains 1\.0e-08"):
        agree(plain, runs[0], [weight + 1e-7 for weight in runs[0]], "they")
    agree(rough, runs[1], [weight + 1e-7 for weight in runs[1]], "they")


def test_whatever_is_raised_is_an_outcome():
    def raising(error):
        raise error

    assert tried("a", raising, NotApplicable("why")).status == NOT_APPLICABLE
    outcome = tried("a", raising, ZeroDivisionError("by  zero"))
    assert (outcome.status, outcome.message) == (FAILED, "ZeroDivisionError: by zero")
    assert "in raising" in outcome.trace
    assert tried("a", raising, SystemExit(3)).status == FAILED
    with pytest.raises(KeyboardInterrupt):
        tried("a", raising, KeyboardInterrupt())


def test_the_report_puts_failures_first_with_a_command_each():
    report = check(broken.OrderCounts, {"momentum": 0.5}, only=[*FEW, "foreach"])
    assert (report.passed, report.failed) == (3, 1)
    again = f"nestlearn check {broken.__name__}:OrderCounts --set momentum=0.5 --only order"
    lines = str(report).splitlines()
    assert lines[0].endswith("OrderCounts: 75%, 3 of 4 checks passed; 1 do not apply.")
    assert lines[1].startswith("fail  order ") and lines[3].strip() == again
    assert lines[-1].startswith("n/a ")
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["score"] == 0.75 and plain["settings"] == {"momentum": 0.5}
    first = plain["checks"][0]
    assert (first["name"], first["status"], first["reproduce"]) == ("order", "failed", again)
    assert "AssertionError" in first["trace"] and plain["versions"]["torch"] == torch.__version__
    table = [line for line in report.markdown().splitlines() if line.startswith("| ")]
    assert len(table) == 2 + 5 and table[2].startswith("| order | failed | weights of the two orders differ by")
    assert f"`{again}`" in table[2]


def test_the_random_numbers_of_the_caller_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    check(torch.optim.SGD, only=["order"])
    assert torch.equal(torch.rand(1), expected)


def test_a_watcher_is_told_each_outcome():
    told = []
    check(torch.optim.SGD, only=FEW, watch=told.append)
    assert {outcome.name for outcome in told} == set(FEW)
