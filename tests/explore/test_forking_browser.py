"""A fork in a browser: from a click on a lane, and from the form by keyboard, to its curve over that of its parent."""

from __future__ import annotations

import json
import os
import re
import time
from importlib.util import find_spec
from pathlib import Path

import axe
import pytest
from chromium import Opened, marks, started_browser, until
from playwright.sync_api import expect
from served_runs import serving

pytest.importorskip("uvicorn", reason='the page needs the extra "explore"')
pytest.importorskip("websockets", reason='the page needs the extra "explore"')

from nestlearn.training.run_folder import RunFolder
from nestlearn.training.train_run import TrainRun
from nestlearn.training.train_settings import TrainSettings, resolve_training

pytestmark = marks

TINY = (
    *("task=digits", "optimizer=DeepMomentum", "optimizer.hidden=4", "task.hidden=8", "threads=1"),
    *("steps=40", "rows=40", "points=2", "checkpoint_every=10", "checkpoints=5", "record=1"),
)


def test_a_memory_is_switched_off_by_a_click_and_the_form_works_by_keyboard(tmp_path: Path) -> None:
    run = TrainRun(RunFolder(tmp_path / "mine"), resolve_training(TrainSettings(), *TINY))
    run.begin()
    run.run()
    with started_browser() as browser, serving(tmp_path) as server, Opened(browser, server.url) as opened:
        page = opened.page
        expect(page.locator("#forkstep option")).to_have_text(["0", "10", "20", "30", "40"])
        expect(page.locator("#forkstep")).to_have_value("30")
        page.locator("#score").focus()
        for key in ("Home", *["ArrowRight"] * 11):
            page.keyboard.press(key)
        expect(page.locator("#forkstep")).to_have_value("10")
        page.keyboard.press("f")
        expect(page.locator("#forkstep")).to_be_focused()
        if find_spec("axe_playwright_python") or os.environ.get("CI"):
            assert axe.violations(page) == []

        name = "Switch matrix.momentum off from here: matrix.second_moment goes with it"
        expect(page.get_by_role("button", name=name)).to_have_count(1)
        expect(page.locator("#forkpart")).to_contain_text("momentum: matrix.momentum and matrix.second_moment")
        expect(page.locator("#forkwhy")).to_have_text(
            "matrix and element: the weights themselves, which are what is trained."
        )
        page.get_by_role("button", name="Switch matrix.second_moment off from here").click()
        expect(page.locator("#row")).to_contain_text("optimizer.without: was None, now second_moment")
        expect(page.locator("#now")).to_contain_text("finished")
        # W, the skip path, and the momentum without what its target remembers.
        expect(page.locator("#nesting .card")).to_have_count(3)
        assert page.get_by_role("checkbox").first.is_checked()
        until(page, "explore.difference.values().length === 40 && explore.losses.lines() === 3")
        values = page.evaluate("explore.difference.values()")
        assert values[:10] == [0] * 10 and any(values[10:]) and page.locator("#difference").is_visible()

        page.get_by_role("radio", name=re.compile(r"mine, finished")).focus()
        page.keyboard.press("Space")
        expect(page.locator("#forkstep option")).to_have_count(5)
        page.locator("#forksettings").focus()
        page.keyboard.type("optimizer.name=SGD")
        page.keyboard.press("Enter")
        expect(page.locator("#forksays")).to_contain_text("expected those of the optimizer, as optimizer.lr")
        assert [each for each in opened.complaints if "400" not in each] == []
        latest = time.monotonic() + 60
        while not (tmp_path / "mine-fork1" / "report.html").exists():  # it writes there until then
            assert time.monotonic() < latest
            time.sleep(0.05)
    facts = json.loads((tmp_path / "mine-fork1" / "fork.json").read_text())
    assert facts["step"] == 10 and not (tmp_path / "mine-fork2").exists()
