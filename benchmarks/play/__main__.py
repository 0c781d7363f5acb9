"""Weigh and time the playground in chromium: ``python -m benchmarks.play [--quick]``.

Exit status 0 when the file is below 300 kB, the first paint comes in less than 300 ms, and the slowest slider of the
slowest rung is answered in less than 50 ms; 1 when not.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from playwright.sync_api import sync_playwright

from benchmarks.explore.served import ARGUMENTS, chromium
from benchmarks.optim.report import judged
from benchmarks.play.answers import answers
from benchmarks.play.opening import opening
from nestlearn.play import write_page

RESULTS = Path(__file__).parent / "results"
BARS = {"bytes": 300e3, "first_ms": 300.0, "ms": 50.0}


def main() -> int:
    """0 when every bar is met, 1 when not."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.play", description=__doc__)
    options.add_argument("--quick", action="store_true", help="three rungs and few repeats, not saved")
    quick = options.parse_args().quick
    torch.set_num_threads(1)  # only so that the machine is called as in the other benchmarks
    load = round(os.getloadavg()[1], 2)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        path = write_page(Path(place) / "playground.html")
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        rows: list[dict[str, Any]] = [{"what": "the file", "bytes": path.stat().st_size}]
        rows.append(opening(browser, path.as_uri(), 5 if quick else 20))
        rows.append(answers(browser, path.as_uri(), 3 if quick else 9, ("wirer", "deeper", "adam") if quick else None))
        version = browser.version
        browser.close()
    return judged(rows, BARS, quick, RESULTS, chromium=version, load_of_five_minutes=load)


if __name__ == "__main__":
    sys.exit(main())
