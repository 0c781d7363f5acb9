"""Time and weigh recording and looking: ``python -m benchmarks.explore [--quick]``.

Exit status 0 when a recorder takes less than 1% of a training, the server of a long record less than 200 MB, and the
page less than 8 ms of script a frame, and a fork is drawn in less than 10 s; 1 when not.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.explore.cost import MAKES, cost
from benchmarks.explore.forked import forked
from benchmarks.explore.served import draw, memory
from benchmarks.optim.report import judged

RESULTS = Path(__file__).parent / "results"
BARS = {"share": 0.01, "bytes": 200e6, "ms": 8.0, "s": 10.0}


def main() -> int:
    """0 when every bar is met, 1 when not."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.explore", description=__doc__)
    options.add_argument("--quick", action="store_true", help="a twentieth of it, not saved")
    quick = options.parse_args().quick
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = [cost(name, 100 if quick else 1600) for name in MAKES]
    with tempfile.TemporaryDirectory() as place:
        rows.append(memory(Path(place) / "memory", 5_000 if quick else 100_000))
        rows.append(draw(Path(place) / "draw", 1_000 if quick else 10_000, 20 if quick else 100))
        rows.append(forked(Path(place) / "forked", 100 if quick else 400))
    return judged(rows, BARS, quick, RESULTS)


if __name__ == "__main__":
    sys.exit(main())
