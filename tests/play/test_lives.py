"""The engine of the playground in a browser: paths are those of nestlearn, rules and controls what they say."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from chromium import Opened, marks, started_browser
from playwright.sync_api import Page

from nestlearn import rules
from nestlearn.play import write_page
from nestlearn.rules import (
    average,
    chain,
    deep,
    deep_adam,
    delta,
    gradient,
    keep_length,
    orthogonal,
    parallel,
    precondition,
    second_moment,
    unit_rows,
    whiten,
    within,
)
from nestlearn.rules import sum as summed

pytestmark = marks

BRAIN: dict[str, Any] = {"inner_lr": 0.5, "retention": 0.999}
MUON = orthogonal(4, coefficients="fitted")
MOMENTUM = average(0.7, nesterov=True, name="M")
# Rung -> its rule as it begins, and its control.
RULES = {
    "wirer": (gradient(), gradient()),
    "box": (summed(0.9, name="M"), gradient()),
    "preconditioned": (chain(precondition(), summed(0.9, name="M")), chain(summed(0.9, name="M"))),
    "objective": (delta(0.9, inner_lr=0.5, name="M"), gradient()),
    "matrix": (chain(unit_rows(), deep(8, 0.1, 0.999, model="matrix", name="M")), chain(unit_rows())),
    "brain": (chain(unit_rows(), deep(8, **BRAIN, name="M")), chain(unit_rows())),
    "deeper": (
        chain(
            unit_rows(),
            deep(8, **BRAIN, written_by=chain(deep(8, **BRAIN, name="M2"), keep_length()), name="M1"),
        ),
        chain(unit_rows(), deep(8, **BRAIN, written_by=chain(keep_length()), name="M1")),
    ),
    "adam": (chain(average(0.9, corrected=True, name="m"), second_moment(0.999, name="v")), chain()),
    "deep-adam": (
        deep_adam(8, **BRAIN, first=0.9, second=0.999),
        chain(average(0.9, corrected=True, name="deep_adam.m"), second_moment(0.999, name="deep_adam.v")),
    ),
    "speeds": (
        parallel(average(0.8, name="fast"), average(0.8, period=10, name="slow")),
        parallel(average(0.8, name="fast")),
    ),
    "nested": (
        chain(MOMENTUM, within(whiten(retention=0.97, damping=1.0, refresh=5), MUON)),
        chain(MOMENTUM, MUON),
    ),
}
LIVES = [
    "",
    "world=quadratic&seed=3&lr={half}&noise=0.5",
    "world=regression&seed=11&lr={half}&noise=1.7&steepness=2.5&retention=0.6&start=0.5,1.5,-2,-0.25",
    "seed=5&noise=0.6&steepness=6.5&retention=0.5&inner_lr=1.3&period=7&start=1.5,-1.2&own=true",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path = write_page(tmp_path_factory.mktemp("play") / "page.html")
    with started_browser() as browser, Opened(browser, path, reduced_motion="reduce") as opened:
        yield opened.page
        assert opened.complaints == []


def report(page: Page, fragment: str) -> dict[str, Any]:
    """What the page shows for an address, as data."""
    found: dict[str, Any] = page.evaluate("(hash) => { playground.open(hash); return playground.report(); }", fragment)
    return found


def test_every_rung_is_known_here(page: Page) -> None:
    assert page.evaluate("playground.rungs") == list(RULES)
    assert page.evaluate("playground.worlds") == ["ravine", "quadratic", "regression"]


@pytest.mark.parametrize("rung", RULES)
def test_rules_and_controls_are_what_the_rung_says(page: Page, rung: str) -> None:
    found = report(page, f"#rung={rung}")
    rule, control = RULES[rung]
    assert eval(found["rule"], vars(rules).copy()) == rule
    assert eval(found["control"], vars(rules).copy()) == control
    left = rule
    for part in filter(None, found["state"]["off"].split(",")):
        left = left.without(part)
    assert left == control


@pytest.mark.parametrize("life", LIVES, ids=["begins", "quadratic", "regression", "ravine"])
@pytest.mark.parametrize("rung", RULES)
def test_the_copied_program_goes_the_path_of_the_page(page: Page, rung: str, life: str) -> None:
    half = report(page, f"#rung={rung}")["rate"] / 2
    found = report(page, f"#rung={rung}&{life.format(half=half)}")
    names: dict[str, Any] = {}
    exec(compile(found["python"], f"{rung}, copied", "exec"), names)
    same(names["path"], found["path"])
    same(names["control"], found["controlPath"] or found["path"])
    assert len(found["path"]) == 151
    if found["controlPath"]:
        assert found["controlPath"] != found["path"]


def same(path: list[torch.Tensor], shown: list[list[list[float]]]) -> None:
    torch.testing.assert_close(torch.stack(path), torch.tensor(shown, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_a_control_tuned_on_its_own_is_at_the_best_rate_of_a_grid(page: Page) -> None:
    found = report(page, "#rung=box&own=true")
    assert found["controlRate"] != found["rate"] == 0.005

    def late(rate: float) -> float:
        """The loss of gradient descent on average over the second half of its life."""
        losses = report(page, f"#rung=wirer&lr={rate}")["losses"]
        return sum(losses[75:]) / len(losses[75:])

    best = late(found["controlRate"])
    assert best < late(found["controlRate"] * 2) and best < late(found["controlRate"] / 2)
