"""Time, memory and kernels of a piece of work on the device; processor time of one process on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.optim.timing import Unit, seconds

__all__ = ["kernels", "memory", "settled", "turns"]


def turns(units: Mapping[str, Unit], device: str, rounds: int, runs: int) -> dict[str, list[float]]:
    """Seconds a run of every unit in every round: A B C A B C ..."""
    found: dict[str, list[float]] = {name: [] for name in units}
    for _ in range(rounds):
        for name, unit in units.items():
            found[name].append(seconds(unit, device, runs) / runs)
    return found


def settled(device: str) -> int:
    """Bytes that are in use once nothing is under way; the highest mark starts again there. 0 on a CPU."""
    if not device.startswith("cuda"):
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def memory(work: Callable[[], object], device: str) -> int | None:
    """Most bytes that were in use above what is in use now; None on a CPU."""
    before = settled(device)
    work()
    if not device.startswith("cuda"):
        return None
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def kernels(work: Callable[[], object], device: str, most: int = 10) -> dict[str, Any]:
    """What the device ran: number of kernels, their milliseconds together, and those with the largest shares.

    Where nobody may look, everything is None and ``profile_error`` says why: times are told all the same.
    """
    try:
        events = _events(work, device)
    except Exception as error:  # noqa: BLE001 - drivers refuse in many ways
        return {"kernels": None, "busy_ms": None, "top": [], "profile_error": f"{type(error).__name__}: {error}"[:300]}
    total = sum(event[0] for event in events)
    top = [
        {"kernel": name[:120], "share": round(spent / total, 4), "calls": count} for spent, count, name in events[:most]
    ]
    return {"kernels": sum(event[1] for event in events), "busy_ms": total / 1e3, "top": top}


def _events(work: Callable[[], object], device: str) -> list[tuple[float, int, str]]:
    """Microseconds, calls and name of each kernel, or of each operation of a CPU; the longest first."""
    cuda = device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as seen:
        work()
        if cuda:
            torch.cuda.synchronize()
    clock, kind = ("self_device_time_total", DeviceType.CUDA) if cuda else ("self_cpu_time_total", DeviceType.CPU)
    averages = [event for event in seen.key_averages() if event.device_type == kind and not _annotation(event)]
    found = [(getattr(event, clock), event.count, event.key) for event in averages]
    if not any(event[0] for event in found):
        raise RuntimeError("the profiler saw no kernel")
    return sorted(found, reverse=True)


def _annotation(event: Any) -> bool:
    """Whether it is a span that somebody named, which has the time of the kernels below it once more."""
    return bool(getattr(event, "is_user_annotation", False)) or event.key.startswith(("Optimizer.", "ProfilerStep"))
