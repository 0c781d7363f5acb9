"""Every row that fits, as text and as one file: ``python -m benchmarks.gpu [--device cpu] [--only hope]``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import report
from benchmarks.gpu.conductor import Conductor
from benchmarks.gpu.rows import Row
from benchmarks.gpu.rows import rows as every_row

ALL_SECONDS = 480


def main() -> int:
    """0 when every row was made and is right, 1 when one is wrong, failed or stopped, 2 without a device."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that processes are ended
    start = time.monotonic()
    chosen = _chosen(options.only)
    if len(chosen) == 1:
        print(f"--only {options.only!r}: no name of a row holds it")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        _fresh_caches(folder)
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # on a CPU only small things are computed, or a dry run
        made = Conductor(options.device, options.seconds).run(chosen)
        first = next(made)
        print(report.line(first), flush=True)
        if first["status"] != "ok":
            return 2
        path = options.out or (None if options.only or options.device == "cpu" else report.place(first["machine"]))
        head = {"machine": first["machine"], "device": options.device, "allowed_seconds": options.seconds}
        head["dry_run"] = options.device == "cpu"
        rows: list[dict[str, Any]] = []
        for row in made:
            rows.append(row)
            print(report.line(row), flush=True)
            if path is not None:
                report.write(path, {**head, "seconds": round(time.monotonic() - start, 1)}, rows)
    print(f"\n{report.summary(rows)} in {time.monotonic() - start:.0f} s")
    if path is not None:
        print(f"written: {path.name}")
    return 1 if any(row["status"] in ("wrong", "failed", "stopped") for row in rows) else 0


def _chosen(only: str) -> list[Row]:
    """The row that tells the machine, and all others or those with one of the texts in their name."""
    first, *others = every_row()
    texts = [text for text in only.lower().split(";") if text] or [""]
    return [first, *(row for row in others if any(text in row.name.lower() for text in texts))]


def _fresh_caches(folder: str) -> None:
    """Compilers begin with nothing, so that their seconds are those of a first time, and leave nothing behind."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "inductor")
    os.environ["TRITON_CACHE_DIR"] = str(Path(folder) / "triton")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run with small sizes")
    parser.add_argument(
        "--only", default="", help="only rows whose name holds this text, or one of several with ; between"
    )
    parser.add_argument("--seconds", type=float, default=ALL_SECONDS, help=f"for everything (default {ALL_SECONDS})")
    parser.add_argument("--out", type=Path, help="JSON file; by default one in results/ named after the GPU")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
