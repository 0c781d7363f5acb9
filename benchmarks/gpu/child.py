"""The process that computes rows: it reads names from its input and writes a line of JSON for each.

    python -m benchmarks.gpu.child --device cuda

Whatever a row does to it, a hang or a crash included, costs that row: the other side kills it and starts another.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from benchmarks.gpu.rows import MARK, Row, rows

__all__ = ["main", "outcome", "plain"]

AFTER = 20
"""Seconds after its limit at which a process that nobody has killed ends itself: its parent is gone."""


def main() -> int:
    """0 when the input has ended, 3 when a row has left the device unusable."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.child", description=__doc__)
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    known = {row.name: row for row in rows()}
    if not usable(device):
        _say({"status": "failed", "note": f"this torch ({torch.__version__}) has no working device {device!r}"})
        return 3
    _say({"status": "ready"})
    for line in sys.stdin:
        asked = json.loads(line)
        signal.alarm(math.ceil(asked["limit"]) + AFTER)
        made = outcome(known[asked["name"]], device)
        made["over"] = not usable(device)
        signal.alarm(0)
        _say(made)
        if made["over"]:
            return 3
    return 0


def outcome(row: Row, device: str) -> dict[str, Any]:
    """What the row found: its figures with ``status`` and ``note``, or the error as text."""
    module, _, function = row.work.partition(":")
    start = time.monotonic()
    try:
        work: Callable[..., dict[str, Any]] = getattr(import_module(f"benchmarks.gpu.{module}"), function)
        found = {"status": "ok", "note": "", **work(device, **row.arguments)}
    except Exception as error:  # noqa: BLE001 - a row that fails says why and the others go on
        found = {"status": "failed", "note": _first_line(error), "trace": traceback.format_exc(limit=-6)}
    found["seconds"] = round(time.monotonic() - start, 2)
    return plain(found)


def usable(device: str) -> bool:
    """Whether the device still computes: some errors of CUDA stay until the process ends."""
    try:
        return float(torch.ones(2, device=device).sum()) == 2.0
    except Exception:  # noqa: BLE001 - whatever it is, the device does not compute
        return False


def plain(value: Any) -> Any:
    """As JSON can hold it; numbers that are none become words."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def _say(message: dict[str, Any]) -> None:
    print(MARK + json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
