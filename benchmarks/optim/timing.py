"""Interleaved timing: A B A B ... in one process, and the ratio of each pair.

A ratio of neighbours is steadier than two absolute times: whatever slows the machine slows both. On a CPU the clock is
the process's own CPU time, which does not run while another process has the core; with one thread and an idle machine
it equals wall time. On CUDA it is the time between events on the stream.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Measurement", "Unit", "alternate", "interleave", "seconds", "settle_allocator"]


@dataclass(frozen=True)
class Unit:
    """What is timed: ``run()`` once, after ``prepare()`` outside the clock."""

    run: Callable[[], object]
    prepare: Callable[[], object]


@dataclass(frozen=True)
class Measurement:
    """Times are milliseconds a run; ``ratios`` are ours / reference, one a round."""

    ratios: list[float]
    ours_ms: float
    reference_ms: float
    runs_per_round: int

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high


def settle_allocator() -> None:
    """Bring the C allocator to where any process is that has trained a model.

    glibc returns freed blocks to the system, and pays for fresh pages at the next allocation, until it has once freed a
    block as large, up to 32 MiB. Without this the first rows pay for it and the last ones do not: up to 40% of a ratio.
    """
    block = torch.empty(31 << 20, dtype=torch.uint8)
    del block


def interleave(
    ours: Unit, reference: Unit, *, device: str, rounds: int, cycle: int, target_ms: float, warm: int = 3
) -> Measurement:
    """Time both, ``rounds`` times in turn.

    Args:
        ours: timed first in every round.
        reference: timed second.
        device: "cpu" or a CUDA device.
        rounds, cycle, target_ms, warm: as in ``alternate``.
    """
    return alternate(
        lambda runs: seconds(ours, device, runs),
        lambda runs: seconds(reference, device, runs),
        rounds=rounds,
        cycle=cycle,
        target_ms=target_ms,
        warm=warm,
    )


def alternate(
    ours: Callable[[int], float],
    reference: Callable[[int], float],
    *,
    rounds: int,
    cycle: int,
    target_ms: float,
    warm: int = 3,
) -> Measurement:
    """The same for two clocks: a number of runs -> the seconds that they took, wherever they run.

    Args:
        ours: asked first in every round.
        reference: asked second.
        rounds: pairs; at least 2.
        cycle: runs of both in a round are a multiple of this, so that what happens every few steps is counted fairly.
        target_ms: runs are repeated until a round of the reference takes about this long.
        warm: runs of the reference before the clock counts; one is enough for what takes many seconds.
    """
    for _ in range(cycle + (warm > 1)):  # first runs allocate state and compile
        ours(1)
    fastest = min(reference(1) for _ in range(warm))
    runs = cycle * max(1, round(target_ms / 1e3 / max(fastest, 1e-6) / cycle))
    pairs = [(ours(runs), reference(runs)) for _ in range(rounds)]
    return Measurement(
        ratios=[a / b for a, b in pairs],
        ours_ms=1e3 / runs * statistics.median(a for a, _ in pairs),
        reference_ms=1e3 / runs * statistics.median(b for _, b in pairs),
        runs_per_round=runs,
    )


def seconds(unit: Unit, device: str, runs: int = 1) -> float:
    """Of so many runs, each begun when the device has nothing else to do; preparing is not counted."""
    return _cuda_seconds(unit, runs) if device.startswith("cuda") else _cpu_seconds(unit, runs)


def _cpu_seconds(unit: Unit, runs: int) -> float:
    total = 0.0
    for _ in range(runs):
        unit.prepare()
        start = time.process_time()
        unit.run()
        total += time.process_time() - start
    return total


def _cuda_seconds(unit: Unit, runs: int) -> float:
    events = []
    for _ in range(runs):
        unit.prepare()
        torch.cuda.synchronize()  # so that the launch of the step is not hidden behind the work of prepare()
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        unit.run()
        stop.record()
        events.append((start, stop))
    torch.cuda.synchronize()
    return sum(start.elapsed_time(stop) for start, stop in events) / 1e3
