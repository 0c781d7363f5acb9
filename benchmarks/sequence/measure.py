"""One row of a table as plain data: a ratio with quartiles, both absolute figures, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from benchmarks.ops.peak import peak_bytes
from benchmarks.optim.timing import Measurement, Unit, interleave
from benchmarks.sequence.models import DECODED, count, decoding, named_training, network, reading, training
from benchmarks.sequence.rows import BATCH, Growth, Row
from benchmarks.sequence.theirs import THEIRS

__all__ = ["against", "decode", "growth", "unequal"]


def against(row: Row, quick: bool, rounds: int) -> dict[str, Any]:
    """Ours against the transformer or a model of another library; quick is too short for bars."""
    time, bar = (128, None) if quick else (row.time, row.bar)
    if row.theirs:
        theirs, step = THEIRS[row.theirs][1]()
        ours = network(row.ours, count(theirs) if row.matched else None)
        reference = step(BATCH, time)
    else:
        ours = network(row.ours)
        theirs = network("transformer", count(ours))
        reference = training(theirs, BATCH, time)
    measured = _timed(training(ours, BATCH, time), reference, rounds, row.long)
    return {
        "ours": row.ours,
        "reference": row.theirs or "transformer",
        "what": "training step",
        "shape": f"B={BATCH} T={time}",
        **_figures(measured, bar, 1.0),
        "ours_parameters": count(ours),
        "reference_parameters": count(theirs),
        "note": row.note,
    }


def growth(row: Growth, quick: bool, rounds: int) -> Iterator[dict[str, Any]]:
    """Time or peak memory of a training step at each length against half of it."""
    lengths, bar = ((512, 1024), None) if quick else (row.lengths, row.bar)
    peaks = {}
    if row.what == "memory":
        peaks = {time: peak_bytes(named_training, (row.ours, 1, 128), (row.ours, 1, time), "cpu") for time in lengths}
    for half, full in pairwise(lengths):
        if row.what == "memory":
            ratio = peaks[full] / peaks[half]
            figures = {
                "ratio": ratio,
                "quartiles": [ratio, ratio],
                "unit": "MB",
                **_verdict(ratio, bar),
                "ours_value": peaks[full] / 1e6,
                "reference_value": peaks[half] / 1e6,
                "rounds": 1,
            }
        else:
            measured = _timed(named_training(row.ours, 1, full), named_training(row.ours, 1, half), rounds, False)
            figures = _figures(measured, bar, 1.0)
        yield {
            "ours": row.ours,
            "reference": "itself at T / 2",
            "what": row.what,
            "shape": f"B=1 T={full}",
            **figures,
            "ours_parameters": count(network(row.ours)),
        }


def decode(name: str, bar: float | None, quick: bool, rounds: int) -> dict[str, Any]:
    """A cached token after a long context against one after a short context."""
    model = network(name)
    long, short, bar = (1024, 256, None) if quick else (8192, 1024, bar)
    measured = _timed(decoding(model, long), decoding(model, short), 2 * rounds, False)
    return {
        "ours": name,
        "reference": f"itself after {short}",
        "what": "a decoded token",
        "shape": f"B=1 after {long}",
        **_figures(measured, bar, 1 / DECODED),
        "ours_parameters": count(model),
    }


def unequal(name: str, bar: float | None, quick: bool, rounds: int) -> Iterator[dict[str, Any]]:
    """Texts of unequal lengths against texts of the longest of them, from their beginning and after one another."""
    model, time = network(name), 64 if quick else 512
    lengths = [time, time - 55, time - 27, time // 4 + 3]
    for further in (False, True):
        mixed, equal = reading(model, lengths, further), reading(model, [time] * len(lengths), further)
        yield {
            "ours": name,
            "reference": "itself, equal lengths",
            "what": "further text" if further else "first text",
            "shape": f"B={len(lengths)} T={time}",
            **_figures(_timed(mixed, equal, rounds, False), None if quick else bar, 1.0),
            "ours_parameters": count(model),
        }


def _timed(ours: Unit, reference: Unit, rounds: int, long: bool) -> Measurement:
    rounds, warm = (min(rounds, 3), 1) if long else (rounds, 2)
    return interleave(ours, reference, device="cpu", rounds=rounds, cycle=1, target_ms=100, warm=warm)


def _figures(measured: Measurement, bar: float | None, share: float) -> dict[str, Any]:
    """``share`` turns milliseconds of a run into those that are reported."""
    return {
        "ratio": measured.median,
        "quartiles": list(measured.quartiles),
        "unit": "ms",
        **_verdict(measured.median, bar),
        "ours_value": share * measured.ours_ms,
        "reference_value": share * measured.reference_ms,
        "rounds": len(measured.ratios),
        "runs_per_round": measured.runs_per_round,
    }


def _verdict(ratio: float, bar: float | None) -> dict[str, Any]:
    return {"bar": bar, "passed": None if bar is None else ratio <= bar}
