"""The contract suite of the optimizers under the Python and torch of this machine, where pytest is installed.

Its small cases are on the CPU: what it tells is whether the library keeps its promises with this torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["suite"]

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT / "tests" / "contract"
NEEDED = ("pytest", "hypothesis")


def suite(device: str) -> dict[str, Any]:
    """The fast part of it; a dry run checks the list of members alone."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing or not SUITE.is_dir():
        return {"status": "absent", "note": f"absent: {', '.join(missing) or 'tests/contract'}"}
    done = subprocess.run(_command(device), cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    without = "" if find_spec("expecttest") else "; without torch's own suite, absent: expecttest"
    status = "ok" if done.returncode == 0 else "failed"
    return {"status": status, "failed": failed[:40], "last": lines[-20:], "note": f"{lines[-1].strip('= ')}{without}"}


def _command(device: str) -> list[str]:
    chosen = [str(SUITE if device.startswith("cuda") else SUITE / "test_members.py")]
    if find_spec("expecttest") is None:
        chosen += ["--ignore", str(SUITE / "test_torch_conformance.py")]
    if find_spec("xdist") is not None and device.startswith("cuda"):
        chosen += ["-n", str(max(2, (os.cpu_count() or 2) - 2))]
    without = ["-p", "no:cacheprovider", "-p", "no:benchmark"]
    plain = ["-q", *without, "-m", "not slow", "--color=no", "--tb=line", "-o", "addopts="]
    return [sys.executable, "-m", "pytest", *plain, "--import-mode=importlib", *chosen]


def _environment() -> dict[str, str]:
    """One thread a process, and no device, which every one of them would otherwise open."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
