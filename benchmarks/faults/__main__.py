"""``python -m benchmarks.faults [--loader NAME] [--inputs N] [--kills N]``: spoil, kill, print what was found, save it.

What was done is in the result file, and is gone on from: with ``--inputs 10000`` a file that has 1,000 gets the other
9,000. A loader may answer with the error that it documents, within a second of CPU time and a gigabyte, or with the
content; anything else is listed, with the number of the input, which makes it again.
"""

import argparse
import json
import random
import resource
import signal
import sys
import tempfile
import warnings
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any

import torch

from benchmarks.faults.kills import kill_all
from benchmarks.faults.loaders import LOADERS
from benchmarks.optim import report

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"
SECONDS, BYTES, PATIENCE = 1.0, 1_000_000_000, 60


class _TooLong(BaseException):
    """No loader catches it."""


def _stop(number: int, frame: object) -> None:
    raise _TooLong


def spoil(name: str, first: int, last: int, seed: int) -> dict[str, Any]:
    """Give a loader the inputs ``first`` to ``last - 1``; what came of them."""
    loader, found = LOADERS[name], {"inputs": 0, "refused": 0, "slowest": 0.0, "failures": []}
    signal.signal(signal.SIGALRM, _stop)
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        once = loader.prepare(Path(place))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(first, last):
            start, failure = process_time(), ""
            signal.alarm(PATIENCE)
            try:
                once(random.Random(f"{seed}/{name}/{number}"))
            except loader.errors as error:
                found["refused"] += 1
                failure = "a message of more than 2000 characters" if len(str(error)) > 2000 else ""
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                failure = f"{type(error).__name__}: {error}"[:300]
            signal.alarm(0)
            taken = process_time() - start
            grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            failure = failure or (f"{taken:.1f} s" if taken > SECONDS else "")
            failure = failure or (f"{grown / 1e9:.1f} GB" if grown > BYTES else "")
            found["inputs"] += 1
            found["slowest"] = max(found["slowest"], round(taken, 3))
            if failure:
                found["failures"].append({"input": number, "what": failure})
    return found


def main() -> int:
    """0 when every answer was a documented one and nothing was lost, 1 when not."""
    options = _arguments()
    torch.set_num_threads(1)
    machine = report.machine("cpu")
    path = options.output or RESULTS / f"{report.slug(machine)}.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"loaders": {}, "kills": {}}
    for name in options.loader or (LOADERS if options.inputs else ()):
        done = kept["loaders"].setdefault(name, {"inputs": 0, "refused": 0, "slowest": 0.0, "failures": []})
        new = spoil(name, done["inputs"], max(done["inputs"], options.inputs), options.seed)
        for key in ("inputs", "refused", "failures"):
            done[key] += new[key]
        done["slowest"] = max(done["slowest"], new["slowest"])
        counts = f"{done['inputs']:>7,} inputs {done['refused']:>7,} refused {len(done['failures']):>4} failures"
        print(f"{name:<16}{counts}   slowest {done['slowest']:.2f} s", flush=True)
        for failure in done["failures"][:5]:
            print(f"    input {failure['input']}: {failure['what']}")
        _save(kept, machine, path)
    if options.kills:
        kill_all(options.kills, options.seed, kept["kills"], lambda: _save(kept, machine, path))
    failed = any(found["failures"] for found in kept["loaders"].values())
    return int(failed or any(found["lost"] for found in kept["kills"].values()))


def _save(kept: dict[str, Any], machine: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    report.save(kept | {"machine": machine, "date": datetime.now(UTC).date().isoformat()}, path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--loader", action="append", choices=LOADERS, help="this one alone; may be repeated")
    parser.add_argument("--inputs", type=int, default=0, help="spoilt inputs for each loader, in all")
    parser.add_argument("--kills", type=int, default=0, help="kills of train, compare and generate, in all of each")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs and of the moments")
    parser.add_argument("--output", type=Path, help="JSON file to go on with; by default one in results/")
    options = parser.parse_args()
    if options.inputs < 0 or options.kills < 0 or not (options.inputs or options.kills):
        parser.error("expected --inputs or --kills above 0")
    return options


if __name__ == "__main__":
    sys.exit(main())
