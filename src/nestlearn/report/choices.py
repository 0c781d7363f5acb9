"""How the settings were chosen: every trial of every search."""

from __future__ import annotations

from collections.abc import Sequence

from nestlearn.report.colours import colour
from nestlearn.report.names import short
from nestlearn.report.pictures import SMALL
from nestlearn.report.plot import Panel, path, text
from nestlearn.training import Row

__all__ = ["rates"]


def rates(rows: Sequence[Row], budget: int) -> list[str]:
    """Validation loss of the trials against lr, one small picture a contender: a dot a trial, a line through the best
    at each lr, a ring around the chosen one; dashed and hollow: the control. ``budget`` is how many trials every search
    has before its grid grows.
    """
    by_name = {row.name: row for row in rows}
    shown = [row for row in rows if not row.control and _points(row)]
    losses = sorted(loss for row in rows for _, loss in _points(row) if loss > 0)
    if not losses:
        return []
    limits = (0.94 * losses[0], 1.08 * losses[int(0.97 * (len(losses) - 1))])
    everywhere = [lr for row in shown for lr, _ in _points(row)]
    drawn = []
    for row in shown:
        panel = Panel.of(SMALL, (min(everywhere) / 1.4, max(everywhere) * 1.4), limits, log_x=True, log_y=True)
        panel.axes()
        paint, control = colour(row.contender), by_name.get(row.control_name or "")
        if control and control.contender == row.contender:
            _trials(panel, control, paint, hollow=True)
        _trials(panel, row, paint, hollow=False)
        panel.title(short(row.name), paint)
        beyond = row.trials_count - budget
        panel.parts.append(text(panel.x.end, panel.y.start - 5, f"{budget} + {beyond}" if beyond > 0 else "", "t", "e"))
        drawn.append(panel.done(f"Validation loss of the trials of {row.name} against the learning rate", row.name))
    return drawn


def _points(row: Row) -> list[tuple[float, float]]:
    return [(trial.settings["lr"], trial.loss) for trial in row.trials if trial.loss is not None]


def _trials(panel: Panel, row: Row, paint: str, hollow: bool) -> None:
    best: dict[float, float] = {}
    for lr, loss in _points(row):
        best[lr] = min(loss, best.get(lr, loss))
        x, y = panel.x(lr), panel.y(loss)
        look = f'fill="var(--paper)" stroke="{paint}"' if hollow else f'fill="{paint}"'
        panel.inside.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" {look}/>')
    line = [(panel.x(lr), panel.y(loss)) for lr, loss in sorted(best.items())]
    panel.inside.insert(0, path(line, paint, 1.3, "5 4" if hollow else ""))
    chosen = row.settings.get("lr")
    if chosen in best and not hollow:
        x, y = panel.x(chosen), panel.y(best[chosen])
        panel.inside.append(f'<circle class="l" cx="{x:.1f}" cy="{y:.1f}" r="6" stroke="{paint}" stroke-width="1.4"/>')
