"""The report of two runs of 200,000 rows: seconds and bytes of the whole command, from its start to its end."""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from nestlearn.report import write_systems
from nestlearn.training import Point, RunFolder, RunResult, TrainSettings, resolve_training, to_yaml
from nestlearn.training.run_folder import write_atomic
from nestlearn.training.train_run import results_of

__all__ = ["measure_long"]

ROWS = 200_000
BAR_SECONDS, BAR_BYTES = 1.5, 200_000_000


def _make(path: Path) -> None:
    """A finished folder of ``nestlearn train`` with made-up rows."""
    words = ("task=digits", "optimizer=DeepMomentum", f"steps={ROWS}", "seeds=0..1", f"rows={ROWS}", "points=200")
    settings, folder, results = resolve_training(TrainSettings(), *words), RunFolder.create(path), []
    write_atomic(folder.config, to_yaml(settings))
    write_atomic(folder.environment, "{}")
    for spec in settings.specs():
        draw = random.Random(spec.seed)
        figures = {"loss": 0.5, "accuracy": 90.0}
        results.append(
            RunResult(
                spec.key, spec.task, spec.variant.name, dict(spec.settings), spec.seed, spec.steps, True, "finished",
                validation=figures, test=figures, parameters=100,
                train=[Point(step, 1e-3 * step, draw.random()) for step in range(1, ROWS + 1)],
                curve=[Point(1000 * look, float(look), draw.random()) for look in range(1, ROWS // 1000 + 1)],
                surprises=[[step, "momentum", draw.random()] for step in range(1, ROWS + 1)],
            )
        )  # fmt: skip
        folder.add(results[-1])
    write_atomic(folder.results, json.dumps(results_of(settings.specs(), results).to_plain()))
    write_systems(path)


def _command(path: Path) -> tuple[float, int]:
    """CPU seconds of ``nestlearn report``, and the most bytes that it had, as it says itself: what the system says of a
    child counts those of the one that started it.
    """
    script = (
        "import os, sys; from nestlearn.cli.main import main; sys.argv[0] = 'nestlearn'\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end\n"
        "print(sum(os.times()[:2]), *[l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')])"
    )
    command = [sys.executable, "-c", script, "report", str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    seconds, kilobytes = told.split()
    return float(seconds), 1024 * int(kilobytes)


def measure_long(rounds: int = 3) -> dict[str, Any]:
    """CPU seconds and bytes of the command, with all that it imports; ``rounds`` in turn, after one to warm up."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "run"
        _make(path)
        size = sum(file.stat().st_size for file in (path / "metrics.jsonl", path / "events.jsonl"))
        _command(path)
        found = [_command(path) for _ in range(rounds)]
    seconds, most = median(each for each, _ in found), max(each for _, each in found)
    return {
        "runs": 2,
        "rows": ROWS,
        "bytes_read": size,
        "seconds": seconds,
        "seconds_all": [each for each, _ in found],
        "seconds_bar": BAR_SECONDS,
        "bytes": most,
        "bytes_bar": BAR_BYTES,
        "passed": seconds < BAR_SECONDS and most < BAR_BYTES,
    }
