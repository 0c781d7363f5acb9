"""The report of two runs of 200,000 rows: seconds and bytes, in a process of its own."""

import json
import multiprocessing
import random
import tempfile
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from nestlearn.report import write_report, write_systems
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


def _report(path: Path, answers: Any) -> None:
    before, times = _peak(), []
    for _ in range(3):
        start = process_time()
        write_report(path)
        times.append(process_time() - start)
    answers.put((times, _peak() - before, before))


def _peak() -> int:
    """The most bytes that this process has had; Linux alone says so without those of the one that started it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


def measure_long() -> dict[str, Any]:
    """CPU seconds of a report, and the bytes by which it makes the process grow; ``imported`` is what it had before."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "run"
        _make(path)
        size = sum(file.stat().st_size for file in (path / "metrics.jsonl", path / "events.jsonl"))
        answers = context.Queue()
        child = context.Process(target=_report, args=(path, answers))
        child.start()
        times, grown, imported = answers.get()
        child.join()
    seconds = median(times)
    return {
        "runs": 2,
        "rows": ROWS,
        "bytes_read": size,
        "seconds": seconds,
        "seconds_bar": BAR_SECONDS,
        "bytes": grown,
        "bytes_bar": BAR_BYTES,
        "imported": imported,
        "passed": seconds < BAR_SECONDS and grown < BAR_BYTES,
    }
