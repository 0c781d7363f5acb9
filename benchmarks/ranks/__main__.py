"""Measure, compare with the model of costs, and work out larger runs: ``python -m benchmarks.ranks``."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.optim import report
from benchmarks.ranks.child import ROWS, SHAPES
from benchmarks.ranks.cost import OPTIMIZERS, Machine, share_out
from benchmarks.ranks.shapes import BENCHED, MODELS

RESULTS = Path(__file__).parent / "results"
GPU = Path(__file__).parents[1] / "gpu" / "results" / "nvidia-h200.json"

COUNTS = (8, 64, 256, 1024)
TOKENS = 1 << 20
"""Of a batch over all ranks."""

PASSES = 4e14
"""FLOPs a second of forward and backward passes on one accelerator: two fifths of what is printed on it."""

NEAR, FAR = 4e11, 5e10
"""Bytes a second that an accelerator sends: to seven others in its machine, and between machines."""

LATENCY = 5e-5


def main() -> int:
    """0 when the model of costs is within a factor of two of every measurement, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description=__doc__)
    parser.add_argument("--paper", action="store_true", help="only work out larger runs; nothing is saved")
    options = parser.parse_args()
    larger = list(_larger())
    measured = [] if options.paper else list(_measured())
    for table in (_markdown(measured) if measured else []), _markdown(larger):
        print("\n".join(table), end="\n\n")
    if options.paper:
        return 0
    machine = report.machine("cpu")
    report.save({"machine": machine, "measured": report.dated(lambda: measured), "larger": larger}, _path(machine))
    return 0 if all(0.5 <= row["model / measured"] <= 2 for row in measured if row["ranks"] > 1) else 1


def _path(machine: dict[str, Any]) -> Path:
    return RESULTS / f"{report.slug(machine)}.json"


def _measured() -> Iterator[dict[str, Any]]:
    """One, two and four ranks here, and what the model makes of the figures of one and of two messages."""
    rates: dict[str, float] = {}
    for ranks in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            found = _run(ranks, Path(folder))
        for name in OPTIMIZERS:
            rows = [each[name] for each in found]
            shares, observed = share_out(name, SHAPES, ranks, ROWS, torch.float32)
            seconds, flops = max(row["seconds"] for row in rows), [row["flops"] for row in rows]
            if ranks == 1:
                rates[name] = flops[0] / seconds
            links = [each["machine"] for each in found if "machine" in each]
            machine = Machine(rates[name], cores=os.cpu_count())
            if links:
                bandwidth = statistics.median(link["bandwidth"] for link in links)
                latency = statistics.median(link["latency"] for link in links)
                machine = Machine(rates[name], bandwidth, latency, os.cpu_count())
            total = sum(flops)
            yield {
                "optimizer": name,
                "ranks": ranks,
                "ms a step": round(1e3 * seconds, 1),
                "busiest rank's FLOPs": round(max(flops) / total, 3),
                "sent / weights": round(sum(row["sent_bytes"] for row in rows) / _weights(4), 2),
                "model / measured": round(machine.step(shares, observed) / seconds, 2),
            }


def _weights(itemsize: int) -> int:
    return itemsize * sum(one * two for one, two in SHAPES)


def _run(ranks: int, folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.ranks.child"]
    children = [
        subprocess.Popen([*command, str(rank), str(ranks), str(folder), *OPTIMIZERS], stderr=subprocess.DEVNULL)
        for rank in range(ranks)
    ]
    if {child.wait() for child in children} != {0}:
        raise RuntimeError("a rank has failed; run `python -m benchmarks.ranks.child` for it alone to see why")
    return [json.loads((folder / f"{ranks}ranks{rank}.json").read_text()) for rank in range(ranks)]


def _larger() -> Iterator[dict[str, Any]]:
    """Models of 1B, 8B and 70B in bfloat16, at the rate at which an H200 took the step of one of 300M."""
    timed = {row["name"].removeprefix("step, 300M: "): row for row in json.loads(GPU.read_text())["rows"]}
    for name in OPTIMIZERS:
        benched, _ = share_out(name, tuple(BENCHED), 1, 1, torch.float32)
        rate = benched[0].flops / (timed[name]["ms"]["ours"] / 1e3)
        for model, shapes in MODELS.items():
            weights = sum(one * two for one, two in shapes)
            for ranks in COUNTS:
                shares, observed = share_out(name, tuple(shapes), ranks, 1, torch.bfloat16)
                machine = Machine(rate, NEAR if ranks <= 8 else FAR, LATENCY)
                seconds = machine.step(shares, observed)
                passes = 6 * weights * TOKENS / ranks / PASSES
                yield {
                    "optimizer": name,
                    "parameters": model,
                    "ranks": ranks,
                    "ms a step": _rounded(1e3 * seconds),
                    "of it messages, ms": _rounded(1e3 * (seconds - max(load.flops for load in shares) / rate)),
                    "/ forward and backward": _rounded(seconds / passes),
                    "state, GB a rank": _rounded(max(load.state_bytes for load in shares) / 1e9),
                    "sent, GB a rank": _rounded(max(load.sent_bytes for load in shares) / 1e9),
                }


def _rounded(number: float) -> float:
    return float(f"{number:.2g}")


def _markdown(rows: list[dict[str, Any]]) -> list[str]:
    names = list(rows[0])
    lines = [
        names,
        ["---"] * len(names),
        *([f"{row[name]:g}" if isinstance(row[name], float) else row[name] for name in names] for row in rows),
    ]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


if __name__ == "__main__":
    sys.exit(main())
