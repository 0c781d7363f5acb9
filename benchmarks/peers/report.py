"""The four tables as text."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmarks.peers.contenders import CONTENDERS
from benchmarks.peers.quality import SAME

__all__ = ["checks_lines", "gate_lines", "quality_lines", "speed_header", "speed_line", "state_lines"]


def gate_lines(verdicts: Mapping[str, Any]) -> Iterator[str]:
    """One line a contender: whether it trains, and its closed form."""
    yield f"{'contender':<48} {'trains':<8} {'loss':>8}  closed form"
    for key, verdict in verdicts.items():
        loss = "" if verdict.trained is None else f"{verdict.trained:.4f}"
        form = verdict.form
        told = verdict.problem or ""
        if form is not None:
            told += f"{'pass' if form.passed else 'FAIL'}  {form.name}: {form.error:.1e} (at most {form.tolerance:.0e})"
        yield f"{key:<48} {'yes' if verdict.trains else 'NO':<8} {loss:>8}  {told}".rstrip()


def _mark(key: str, verdicts: Mapping[str, Any]) -> str:
    """The contender's name, with a star where it is not what its name says."""
    return key if verdicts[key].exact else f"{key} *"


def _ratio(figures: Mapping[str, Any]) -> str:
    low, high = figures["quartiles"]
    return f"{figures['median']:.3g}  [{low:.3g}, {high:.3g}]"


def speed_header() -> str:
    """The columns of the step times."""
    return (
        f"{'theirs':<46} {'ours':<46} {'workload':<30} {'ours / theirs':>24} {'theirs / torch':>24}  "
        "torch; ms a step: ours, theirs, torch"
    )


def speed_line(row: Mapping[str, Any], verdicts: Mapping[str, Any]) -> str:
    """Ratios with quartiles, and milliseconds for information."""
    start = f"{_mark(row['theirs'], verdicts):<46} {row['ours']:<46} {row['workload']:<30}"
    if row["problem"]:
        return f"{start} no time: {row['problem']}"
    times = ", ".join(f"{row['milliseconds'][who]:.2f}" for who in ("ours", "theirs", "torch"))
    note = f"  ({row['note']})" if row["note"] else ""
    ours, theirs = _ratio(row["ours_over_theirs"]), _ratio(row["theirs_over_torch"])
    return f"{start} {ours:>24} {theirs:>24}  {row['torch']}; {times}{note}"


def state_lines(table: Mapping[str, Mapping[str, float | str]]) -> Iterator[str]:
    """State bytes a parameter, by the shapes of the matrices."""
    columns = list(next(iter(table.values())))
    yield f"{'contender':<48}" + "".join(f"{column:>22}" for column in columns)
    for key, row in table.items():
        cells = (f"{value:22.2f}" if isinstance(value, float) else f"  {value}" for value in row.values())
        yield f"{key:<48}" + "".join(cells)


def checks_lines(table: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The score of everyone, best first, then each failure with its reason."""
    ranked = sorted(table, key=lambda key: -table[key]["passed"])
    yield f"{'contender':<48} {'score':>7}  a NaN gradient"
    for key in ranked:
        yield f"{key:<48} {table[key]['passed']:>3}/{table[key]['total']}  {table[key]['nonfinite_gradient']}"
    yield ""
    for key in ranked:
        for check, reason in table[key]["checks"].items():
            if reason is not None:
                yield f"FAIL  {key}, {check}: {reason}"


def quality_lines(rows: Iterable[Mapping[str, Any]], verdicts: Mapping[str, Any]) -> Iterator[str]:
    """Test losses of one task, best first, those without a loss last."""
    yield f"{'contender':<48} {'test loss':>9}  {'95% interval':<16} seeds; lr, retention"
    for row in sorted(rows, key=lambda row: math.inf if row["problem"] else row["mean"]):
        name = _mark(row["contender"], verdicts)
        if row["problem"]:
            yield f"{name:<48} no loss: {row['problem']}"
            continue
        low, high = row["interval"]
        seeds = ", ".join(f"{loss:.3f}" for loss in row["test"])
        kept = "" if row["retention"] is None else f", {row['retention']}"
        edge = "  (edge of its grid)" if row["edge"] else ""
        yield f"{name:<48} {row['mean']:9.3f}  [{low:.3f}, {high:.3f}]   {seeds}; {row['lr']:.2g}{kept}{edge}"
    shown = {key: other for key, other in SAME.items() if key in CONTENDERS}
    yield "Not repeated, being equal: " + "; ".join(f"{key} ({other})" for key, other in shown.items())
