"""How often a step waits for the device, and where: at most once, for the check of the gradients.

On CUDA the driver's own watch is used (`torch.cuda.set_sync_debug_mode`), which reports every wait. A CPU has nothing
to wait for, so there the reads of tensors by Python are counted instead, those of step counts left out.
"""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu.problem import Problem, build, fewer
from benchmarks.gpu.settings import SETTINGS

__all__ = ["row", "watched"]

WARM, WATCHED, DRY = 4, 4, 2
"""Steps before, and steps that are watched: what happens every second step happens in both. A dry run has fewer."""

DOCUMENTED = {"ignore": 0, "raise": 1}
"""Waits for an accelerator that the documentation of ``nonfinite`` tells of, a step."""

NOT_OURS = {"closure", "inverse_root", "symmetric_power"}
"""Functions that may wait: the user's own, and eigen-decompositions, which hand their outcome to the host."""


def row(device: str, number: int) -> dict[str, Any]:
    """Waits a step of one setting with and without the check; "wrong" if there are more than documented."""
    setting = SETTINGS[number]
    warm, following = (fewer(device, steps, DRY) for steps in (WARM, WATCHED))
    found: dict[str, Any] = {}
    for nonfinite in DOCUMENTED:
        problem = Problem(device, torch.float32)
        optimizer = build(setting, problem.module, nonfinite=nonfinite)
        counts: list[int] = []
        places: Counter[str] = Counter()
        for step in range(warm + following):
            seen: Counter[str] = Counter()
            problem.step(setting, optimizer, step, around=lambda seen=seen, o=optimizer: watched(device, seen, o))
            if step >= warm:
                counts.append(sum(seen.values()))
                places += seen
        found[nonfinite] = {"a step": counts, "places": dict(places.most_common())}
    judged = DOCUMENTED if device.startswith("cuda") else {}
    more = [name for name, most in judged.items() if max(found[name]["a step"]) > most]
    return {**found, "status": "wrong" if more else "ok", "note": _words(found)}


@contextmanager
def watched(device: str, seen: Counter[str], optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Count waits for the device by the line of the library that waits."""
    if not device.startswith("cuda"):
        with _Reads(seen, optimizer):
            yield
        return

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        if "called a synchronizing" in str(message) and not NOT_OURS & {f.name for f in traceback.extract_stack()}:
            seen[_line_of_ours()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


class _Reads(TorchDispatchMode):
    """Counts reads of a tensor's value by Python."""

    def __init__(self, seen: Counter[str], optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        self.seen = seen
        self.clocks = {state["step"].data_ptr() for state in optimizer.state.values() if "step" in state}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].data_ptr() not in self.clocks:
            self.seen[_line_of_ours()] += 1
        return func(*args, **(kwargs or {}))


def _line_of_ours() -> str:
    """The innermost line of the library on the stack, or of whatever else called."""
    frames = traceback.extract_stack()
    ours = [frame for frame in frames if "nestlearn" in Path(frame.filename).parts]
    frame = (ours or frames[:-2])[-1]
    return f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}"


def _words(found: dict[str, Any]) -> str:
    words = []
    for name in DOCUMENTED:
        counts = found[name]["a step"]
        often = f"{counts[0]}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
        words.append(f'{often} with "{name}"')
    places = found["ignore"]["places"]
    return "; ".join([f"waits a step: {', '.join(words)}", *(f"{count} at {place}" for place, count in places.items())])
