"""How much memory serving a long record takes, and how long the page needs for a frame of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from urllib.request import Request, urlopen

import numpy as np

__all__ = ["draw", "memory"]

LANES = 100
ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
UNFOLD = "document.querySelectorAll('#lanes button[aria-expanded=false]').forEach((one) => one.click())"
TIMED = """async (repeats) => {
    const store = explore.store(), times = [];
    for (let i = 0; i < repeats; i++) {
        const start = performance.now();
        explore.hear(store);
        explore.score.draw();
        times.push(performance.now() - start);
        await new Promise(requestAnimationFrame);
    }
    return times;
}"""


def written(folder: Path, steps: int) -> int:
    """A record of 100 lanes in ten memories; returns its bytes."""
    folder.mkdir(parents=True)
    lanes = [
        {
            "name": f"m{i % 10}/{i}",
            "level": 1 + i % 10,
            "memory": f"m{i % 10}",
            "role": f"role {i}",
            "period": 1 + i % 4,
        }
        for i in range(LANES)
    ]
    about = {"kind": "record", "format": 1, "run": "long", "systems": []}
    (folder / "record.json").write_text(json.dumps(about))
    numbers = [f"{x:.4g}" for x in np.random.default_rng(0).lognormal(size=100_003)]
    with (folder / "writes.jsonl").open("w") as writes, (folder / "metrics.jsonl").open("w") as metrics:
        writes.write(json.dumps({"lanes": [{**lane, "parameters": 1} for lane in lanes]}) + "\n")
        for step in range(1, steps + 1):
            at = 7 * step % 100_000 - LANES
            row = ", ".join(numbers[max(0, at) : max(0, at) + LANES])
            writes.write(f'{{"step": {step}, "seconds": {step / 50}, "surprise": [{row}], "update": [{row}]}}\n')
            metrics.write(
                f'{{"kind": "train", "run": "long", "step": {step}, "seconds": 1, "loss": {numbers[step % 999]}}}\n'
            )
    return (folder / "writes.jsonl").stat().st_size


class Served:
    """The command, serving a folder."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "nestlearn", "explore", str(folder), "--no-browser"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(20)

    def ask(self, path: str) -> Any:
        address, _, token = self.url.partition("#")
        with urlopen(Request(address + path, headers={"Authorization": f"Bearer {token}"})) as answer:
            return json.load(answer)

    def peak(self) -> int:
        """Bytes that the process had at most (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def memory(folder: Path, steps: int) -> dict[str, Any]:
    """The peak of the server's memory after all of a record was asked for, and how long the first answer took."""
    size = written(folder / "long", steps)
    with Served(folder) as served:
        start = perf_counter()
        (run,) = served.ask("api/runs")["runs"]
        seconds = perf_counter() - start
        told = served.ask(f"api/runs/{run['id']}/score?points=1000")
        assert len(told["lanes"]) == LANES and run["latest"] == steps
        return {
            "what": f"serving {LANES} lanes x {steps:,} steps",
            "bytes": served.peak(),
            "file_bytes": size,
            "first_answer_s": seconds,
        }


def draw(folder: Path, steps: int, repeats: int) -> dict[str, Any]:
    """The page's script time for a frame, all lanes unfolded: a frame is heard, and all is drawn."""
    from playwright.sync_api import sync_playwright

    written(folder / "long", steps)
    path = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
    with Served(folder) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(served.url)
        while page.evaluate("explore.store()?.latest ?? 0") < steps:
            page.wait_for_timeout(50)
        page.evaluate(UNFOLD)
        page.wait_for_timeout(200)
        lanes = page.locator("#lanes li").count()
        clock = page.context.new_cdp_session(page)
        clock.send("Performance.enable", {"timeDomain": "threadTicks"})

        def script() -> float:
            """Seconds of the processor that the page's thread has spent in scripts."""
            metrics = clock.send("Performance.getMetrics")["metrics"]
            return float(next(each["value"] for each in metrics if each["name"] == "ScriptDuration"))

        page.evaluate(TIMED, repeats)
        before = script()
        times = page.evaluate(TIMED, repeats)
        spent = script() - before
        browser.close()
    return {
        "what": f"drawing {lanes} lanes of {steps:,} steps",
        "ms": 1000 * spent / repeats,
        "wall_ms": median(times),
    }
