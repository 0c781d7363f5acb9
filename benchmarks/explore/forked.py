"""How long it takes from the click that switches a memory off until the fork is drawn over its parent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.explore.served import ARGUMENTS, Served, chromium

__all__ = ["forked"]

TRAIN = "train --task digits --optimizer DeepMomentum --set checkpoints=6 --checkpoint-every 50 --quiet"
DIFFERS = "explore.difference.values().some((x) => x) && explore.losses.lines() === 3"


def forked(folder: Path, steps: int) -> dict[str, Any]:
    """The demo's task, trained for so many steps, and forked from a checkpoint in its middle."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "nestlearn", *TRAIN.split(), "--steps", str(steps), "--out", str(folder / "run")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with Served(folder) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(served.url)
        choices = page.locator("#forkstep option")
        choices.nth(1).wait_for(state="attached")
        page.locator("#forkstep").select_option(index=choices.count() // 2)
        step = int(page.locator("#forkstep").input_value())
        start = perf_counter()
        page.get_by_role("button", name="Switch momentum off from here").click()
        while not page.evaluate(DIFFERS):
            page.wait_for_timeout(20)
        seconds = perf_counter() - start
        browser.close()
    return {"what": f"a fork of the demo's task drawn, from step {step} of {steps}", "s": seconds}
