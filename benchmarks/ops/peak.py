"""The memory that one pass needs at its peak, in a process of its own."""

import multiprocessing
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.optim.timing import Unit

__all__ = ["peak_bytes"]


def peak_bytes(make: Callable[..., Unit], small: tuple[Any, ...], arguments: tuple[Any, ...], device: str) -> int:
    """Bytes above what the process holds before the pass: resident memory on a CPU, allocated on CUDA.

    Args:
        make: a module-level function; ``make(*arguments)`` is what is measured.
        small: arguments of a quick pass that comes first, since libraries are loaded on first use.
        arguments: of the pass that counts.
        device: "cpu" or a CUDA device.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (make, small, arguments, device))


def _measure(make: Callable[..., Unit], small: tuple[Any, ...], arguments: tuple[Any, ...], device: str) -> int:
    torch.set_num_threads(1)
    make(*small).run()
    unit = make(*arguments)
    before = _peak(device)
    unit.run()
    return _peak(device) - before


def _peak(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # Linux: getrusage would count what the parent process held when it started this one
        return 1024 * int(re.findall(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
