"""Ranks that are forked from one process: torch is loaded once, and what all need is computed once."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

__all__ = ["forked", "run_alone"]


def run_alone(module: str, folder: Path, limit: float) -> None:
    """Run `python -m module folder` in tests/, a process that may fork as it has no threads; it sees no GPU, for each
    of which autograd would have one.

    Args:
        limit: in seconds.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(folder)],
        cwd=Path(__file__).parent,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that what it forked ends with it
    )
    try:
        _, said = process.communicate(timeout=limit)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said[-3000:]


def forked(works: Sequence[Callable[[], None]]) -> None:
    """Do all of these at once, in a process each.

    Raises:
        RuntimeError: if one of them did not end well; what it raised is on its stderr.
    """
    gc.collect()
    gc.freeze()  # what all have is not searched for garbage, and so stays in pages that they share
    children = [os.fork() or _leave(work) for work in works]
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(ends):
        raise RuntimeError(f"expected every process to end with 0, got {ends}")


def _leave(work: Callable[[], None]) -> NoReturn:
    """Do it, and end the process whatever happens: nothing of the parent may go on in a child."""
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - told, and the end of the process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
