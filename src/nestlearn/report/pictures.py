"""The pictures of results: who ended where, and how each got there.

No picture needs its colours to be told apart: every line and row is named where it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from nestlearn.report.colours import colour
from nestlearn.report.names import short
from nestlearn.report.plot import Panel, apart, number, of_one, text
from nestlearn.report.series import Measured
from nestlearn.report.tables import above
from nestlearn.report.thinning import Line
from nestlearn.training import Row

__all__ = ["SMALL", "curves", "panels", "ranking", "training_panels"]

Lines = Mapping[str, Measured]
SMALL = (268.0, 172.0)  # a small panel, in user units
ROW, LETTER = 25, 7.7  # height of a row of the ranking, and the most that a letter of a name is wide
DECADES = 30.0  # losses that differ by more than this factor are drawn on a log scale


def ranking(rows: Sequence[Row], baseline: str, unit: str, least: float | None = None) -> str:
    """Test loss of every contender: a dot the mean, its bar the 95% interval, ticks the seeds, a ring the control.
    Nothing is drawn below ``least``, the lowest loss that there can be.
    """
    by_name = {row.name: row for row in rows}
    shown = [row for row in rows if not row.control]
    losses = [row.test["loss"] for row in rows if row.test]
    values = [value for loss in losses for value in (loss.mean, *loss.values)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    log = _many_decades(low, high)
    limit = high if log else _outlier_limit(values)
    ends = (low / 1.3, limit * 1.3) if log else above(_widened(low, limit), least)
    left = 22 + LETTER * max((len(short(row.name)) for row in shown), default=0)
    panel = Panel.of((424, 56 + ROW * len(shown)), ends, (0, 1), margins=(8, 14, 48, left), log_x=log)
    middles = [8 + ROW * (i + 0.5) for i in range(len(shown))]
    bottom = panel.y.start
    for tick in panel.x.ticks(5):
        panel.parts.append(f'<path class="g" d="M{panel.x(tick):.1f} {bottom}V8"/>')
        panel.parts.append(text(panel.x(tick), bottom + 16, number(tick), "t", "m"))
    panel.parts.append(text((panel.x.start + panel.x.end) / 2, bottom + 34, f"test loss ({unit})", "t", "m"))
    reference = by_name[baseline].test if baseline in by_name else {}
    if reference and reference["loss"].mean <= limit:
        x = panel.x(reference["loss"].mean)
        panel.parts.append(
            f'<path class="l" d="M{x:.1f} {bottom}V8" stroke="{colour(baseline)}" stroke-dasharray="1 5"/>'
        )
    for y, row in zip(middles, shown, strict=True):
        label = text(left - 12, y + 4, short(row.name), "", "e")
        parts = _rank_row(panel, y, row, by_name.get(row.control_name or ""), limit)
        panel.parts.append(of_one(row.name, label, *parts))
    return panel.done("Test loss of every optimizer and of its control")


def _many_decades(low: float, high: float) -> bool:
    """Whether a log scale shows more."""
    return 0 < DECADES * low < high


def _widened(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low) or 0.01 * abs(high) or 0.01
    return low - margin, high + margin


def _outlier_limit(values: Sequence[float]) -> float:
    """Where the axis ends: at the largest value, or well before it if a few values lie far outside."""
    if not values:
        return 1.0
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    return min(ordered[-1], middle + 3.0 * (middle - ordered[0]) + 1e-6)


def _rank_row(panel: Panel, y: float, row: Row, control: Row | None, limit: float) -> list[str]:
    paint, right = colour(row.contender), panel.x.end
    if not row.test:
        return [text(right, y + 4, "diverged", "t", "e")]
    value, parts = row.test["loss"].mean, []
    if control and control.test:
        other = control.test["loss"].mean
        x = panel.x(min(other, limit))
        parts.append(f'<path class="l" d="M{panel.x(min(value, limit)):.1f} {y:.1f}H{x:.1f}" stroke="{paint}"/>')
        if other <= limit:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="var(--paper)" stroke="{paint}"/>')
    if value > limit:
        return [*parts, text(right, y + 4, f"{value:.3g} →", "t", "e")]
    if row.interval:
        ends = [min(max(panel.x(end), panel.x.start), right) for end in row.interval]
        parts.append(
            f'<rect x="{ends[0]:.1f}" y="{y - 3.5:.1f}" width="{ends[1] - ends[0]:.1f}" height="7" rx="3.5" '
            f'fill="{paint}" fill-opacity=".22"/>'
        )
    for seed in row.test["loss"].values:
        if panel.x.start <= panel.x(seed) <= right:
            parts.append(f'<path class="l" d="M{panel.x(seed):.1f} {y - 6:.1f}v12" stroke="{paint}"/>')
    title = escape(f"{row.name}: {value:.4g}")
    parts.append(f'<circle cx="{panel.x(value):.1f}" cy="{y:.1f}" r="5" fill="{paint}"><title>{title}</title></circle>')
    return parts


def _limits(lines: Mapping[str, Line], baseline: str) -> tuple[tuple[float, float], bool]:
    """Loss limits that show the end of training, from just below the best to what the baseline had early on, and
    whether they are for a log scale.
    """
    if not lines:
        return (0.0, 1.0), False
    lowest = min(min(line.mean) for line in lines.values())
    reference = lines.get(baseline) or next(iter(lines.values()))
    ends = sorted(line.mean[-1] for line in lines.values())
    highest = max(reference.mean[min(1, len(reference.mean) - 1)], ends[int(0.8 * (len(ends) - 1))])
    if _many_decades(lowest, highest):
        return (lowest / 1.3, highest * 1.3), True
    return _widened(lowest, highest), False


def curves(rows: Sequence[Row], measured: Lines, baseline: str, unit: str) -> tuple[str, str]:
    """Validation loss of all contenders with the range of their seeds, against steps and against seconds."""
    shown = [row for row in rows if not row.control]
    by_steps = {row.name: line for row in shown if (line := measured[row.name].by_steps)}
    by_seconds = {row.name: line for row in shown if (line := measured[row.name].by_seconds)}
    return (
        _curves(shown, by_steps, baseline, "steps", unit),
        _curves(shown, by_seconds, baseline, "seconds of training", unit),
    )


def _curves(shown: Sequence[Row], lines: Mapping[str, Line], baseline: str, what: str, unit: str) -> str:
    (bottom, top), log = _limits(lines, baseline)
    last = max((line.x[-1] for line in lines.values()), default=1.0)
    right = 28 + LETTER * max((len(short(name)) for name in lines), default=0)
    panel = Panel.of((344 + right, 340), (0, last), (bottom, top), margins=(26, right, 40, 44), log_y=log)
    panel.axes(4, 6, what, f"validation loss ({unit})")
    panel.inside.append('<g class="many">')
    ends = []
    for row in reversed(shown):
        line, paint = lines.get(row.name), colour(row.contender)
        if line is None:
            continue
        panel.inside.append(f'<g data-of="{escape(row.name)}"><title>{escape(row.name)}: {line.mean[-1]:.4g}</title>')
        panel.line(line, paint, 2.6 if row.name == baseline else 1.7, name=row.name)
        panel.inside.append("</g>")
        if bottom <= line.mean[-1] <= top:
            ends.append((row.name, paint, panel.x(line.x[-1]), panel.y(line.mean[-1])))
    panel.inside.append("</g>")
    panel.parts += _end_labels(panel, ends)
    return panel.done(f"Validation loss of every optimizer against {what}")


def _end_labels(panel: Panel, ends: Sequence[tuple[str, str, float, float]]) -> list[str]:
    """Each line's name to the right of the axes, joined to its end, moved apart so that no two overlap."""
    ends, parts, left = sorted(ends, key=lambda end: end[3]), ['<g class="ends">'], panel.x.end
    for (name, paint, x, y), place in zip(
        ends, apart([end[3] for end in ends], 15.5, panel.y.end, panel.y.start), strict=True
    ):
        parts.append(
            of_one(
                name,
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{paint}"/>',
                f'<path class="lead" d="M{x:.1f} {y:.1f}L{left + 12:.1f} {place:.1f}" stroke="{paint}"/>',
                f'<circle cx="{left + 14:.1f}" cy="{place:.1f}" r="3.4" fill="{paint}"/>',
                text(left + 21, place + 4, short(name)),
            )
        )
    return [*parts, "</g>"]


def panels(rows: Sequence[Row], measured: Lines, baseline: str) -> list[str]:
    """One small picture a contender: its own curve and its seeds' range, its control dashed, the baseline thin."""
    shown = [row for row in rows if not row.control and row.name != baseline]
    lines = {row.name: line for row in rows if (line := measured[row.name].by_steps)}
    limits, log = _limits(lines, baseline)
    last = max((line.x[-1] for line in lines.values()), default=1.0)
    drawn = []
    for row in shown:
        panel = Panel.of(SMALL, (0, last), limits, log_y=log)
        panel.axes()
        paint, line = colour(row.contender), lines.get(row.name)
        for name, stroke, width, dash in (
            (baseline, colour(baseline), 1.1, ""),
            (row.control_name, paint, 1.5, "5 4"),
        ):
            if name in lines:
                panel.line(lines[name], stroke, width, dash, ranged=False, name=name)
        if line:
            panel.line(line, paint, 2.2, name=row.name)
            if line.mean[-1] > limits[1]:
                panel.parts.append(text(panel.x.end, 36, f"above: ends at {line.mean[-1]:.3g}", "t", "e"))
        panel.title(short(row.name) + ("" if line else ": diverged"), paint)
        drawn.append(
            panel.done(f"Validation loss of {row.name}, of its control and of {baseline} against steps", row.name)
        )
    return drawn


def training_panels(rows: Sequence[Row], measured: Lines) -> list[str]:
    """The training loss of every contender: the mean, over the range of all points and seeds it stands for."""
    shown = [row for row in rows if not row.control]
    lines = {row.name: points.line for row in shown if (points := measured[row.name].training)}
    values = sorted(value for line in lines.values() for value in line.mean)
    if not values:
        return []
    limits = (values[0], values[int(0.99 * (len(values) - 1))])
    log = _many_decades(*limits)
    last = max(line.x[-1] for line in lines.values())
    drawn = []
    for row in shown:
        panel = Panel.of(SMALL, (0, last), limits, log_y=log)
        panel.axes()
        paint, line = colour(row.contender), lines.get(row.name)
        if line:
            panel.line(line, paint, 1.4, name=row.name)
        panel.title(short(row.name) + (": diverged" if row.status == "diverged" else ""), paint)
        drawn.append(panel.done(f"Training loss of {row.name} against steps", row.name))
    return drawn
