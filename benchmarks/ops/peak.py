"""The memory that one pass needs at its peak, in a process of its own."""

import multiprocessing
import re
import resource
import sys
from pathlib import Path

import torch

from benchmarks.ops.cases import CASES, Shape, ours

__all__ = ["peak_bytes"]


def peak_bytes(case: str, shape: Shape, device: str) -> int:
    """Bytes above what the process holds before the pass: resident memory on a CPU, allocated on CUDA."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (case, shape, device))


def _measure(name: str, shape: Shape, device: str) -> int:
    torch.set_num_threads(1)
    (case,) = [case for case in CASES if case.name == name]
    ours(case, Shape(128, batch=1, heads=1, width=shape.width), device).run()  # libraries are loaded on first use
    unit = ours(case, shape, device)
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
