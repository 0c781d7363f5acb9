"""The tuned table: from ``results.json`` to columns of cells, for the page and the terminal, and to CSV.

Nothing is left out: contenders that lost to the baseline or to their own control, and those that diverged, have their
rows too. The table depends on no task's name: what a task is called and counts in is asked of the task's class.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nestlearn.tasks.about import Figure, about
from nestlearn.training import Results, Row
from nestlearn.training.results import FEWEST, Difference, Equal, Reached

__all__ = ["Cell", "Column", "above", "claim", "columns", "helps", "table_rows", "to_csv", "trials_csv"]

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """A cell's text and a note below it; ``good``: whether it speaks for the contender (None: neither way);
    ``sure``: whether that is significant.
    """

    text: str
    note: str = ""
    good: bool | None = None
    sure: bool = False


@dataclass(frozen=True)
class Column:
    """A column: its heading, what it means, and how its cell is made from a row and the row of its control.

    ``part`` is the table of the page that it stands in, "result" or "cost"; a narrow terminal leaves out the columns of
    the highest ``rank`` first.
    """

    heading: str
    meaning: str
    cell: Callable[[Row, Row | None], Cell]
    rank: int = 0
    part: str = "result"
    number: bool = True


def columns(results: Results, task: str) -> list[Column]:
    """The columns of a task's table, results first and settings last; a tuned setting has one if a row has it, and one
    that is empty is left out.
    """
    rows = results.tasks[task]
    told = about(task)
    settings = dict.fromkeys(name for row in rows for name in row.settings)
    possible = [
        Column("optimizer", "the contender", lambda row, _: Cell(row.name), number=False),
        Column(
            "test",
            f"test loss ({told.unit}), mean over seeds, and the sample standard deviation; below it the 95% interval "
            "of the mean",
            lambda row, _: _test(row, told.least),
        ),
        *_comparisons(results),
        *([_figure(told.figure)] if told.figure else []),
        *_costs(),
        Column(
            "validation",
            f"validation loss ({told.unit}), mean over seeds: the settings were chosen on this split",
            lambda row, _: Cell(_loss(row.validation["loss"].mean) if row.validation else DASH),
            rank=8,
        ),
        *(_setting(name, rank=5 if name == "lr" else 6) for name in settings),
    ]
    return [column for column in possible if any(cell.text != DASH for cell in _cells_of(column, rows))]


def _cells_of(column: Column, rows: Sequence[Row]) -> list[Cell]:
    by_name = {row.name: row for row in rows}
    return [column.cell(row, by_name.get(row.control_name or "")) for row in rows]


def _comparisons(results: Results) -> Iterator[Column]:
    others: tuple[tuple[str, Callable[[Row], Difference | None], str, int], ...] = (
        ("vs control", lambda row: row.against_control, "its control; below zero the memory helps", 0),
        (f"vs {results.baseline}", lambda row: row.against_baseline, f"{results.baseline}; below zero is better", 1),
        (f"vs {results.muon}", lambda row: row.against_muon, f"{results.muon}; below zero is better", 3),
    )
    for heading, of, whose, rank in others:
        yield Column(
            heading,
            f"test loss minus that of {whose}. Paired by seed; p is corrected for the number of contenders, and a star "
            "marks p below 0.05; fewer than four seeds get neither",
            lambda row, _, of=of: _difference(row, of(row)),  # type: ignore[misc]
            rank=rank,
        )
    yield Column(
        "control",
        "test loss of its control: the same with that memory switched off, tuned as hard",
        lambda row, control: _control(control),
        rank=4,
    )


def _costs() -> list[Column]:
    return [
        Column(
            "steps to target",
            "steps until the validation loss is what the baseline ends with, mean over the seeds that reach it",
            lambda row, _: _to_target(row.to_target, lambda found: found.steps, 0),
            rank=3,
            part="cost",
        ),
        Column(
            "s to target",
            "the same in seconds of training",
            lambda row, _: _to_target(row.to_target, lambda found: found.seconds, 2),
            rank=6,
            part="cost",
        ),
        Column(
            "ms/step",
            "median milliseconds of a training step, forward and backward included; best over runs",
            lambda row, _: Cell(_number(row.step_ms, 2)),
            rank=2,
            part="cost",
        ),
        Column(
            "opt ms",
            "median milliseconds of the optimizer's step alone; best over runs",
            lambda row, _: Cell(_number(row.optimizer_ms, 2)),
            rank=8,
            part="cost",
        ),
        Column(
            "state B/par",
            "bytes of optimizer state for each parameter of the network",
            lambda row, _: Cell(f"{row.state_bytes / row.parameters:.1f}", f"{row.state_bytes:,} B"),
            rank=3,
            part="cost",
        ),
        Column(
            "equal time",
            "test loss when it may train as many seconds as the baseline does",
            lambda row, _: _equal(row.equal_time, lambda at: f"{at.steps:,} steps"),
            rank=7,
            part="cost",
        ),
        Column(
            "equal bytes",
            "test loss with the network resized so that weights and state take the bytes of the baseline's",
            lambda row, _: _equal(row.equal_bytes, lambda at: f"{at.parameters:,} par"),
            rank=7,
            part="cost",
        ),
        Column(
            "trials",
            "settings tried in the search, and how many of them diverged",
            lambda row, _: Cell(
                str(row.trials_count or DASH), f"{row.diverged_trials} diverged" if row.diverged_trials else ""
            ),
            rank=8,
            part="cost",
        ),
    ]


def _loss(value: float) -> str:
    """A loss or a difference of losses: four digits after the point, or three significant ones if it is small."""
    return f"{value:.4f}" if abs(value) >= 0.01 or value == 0 else f"{value:.3g}"


def _number(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def _setting(name: str, rank: int) -> Column:
    arrows = {f"{name} at the low edge": " ↓", f"{name} at the high edge": " ↑"}

    def cell(row: Row, _: Row | None) -> Cell:
        if name not in row.settings:
            return Cell(DASH)
        value = row.settings[name]
        text = str(value) if isinstance(value, bool | str) else f"{value:g}"
        return Cell(text + "".join(arrow for edge, arrow in arrows.items() if edge in row.edges))

    meaning = f"chosen {name.replace('_', ' ')}; a dash: it has none, or it is not tuned; an arrow: at that edge"
    return Column(name.replace("_", " "), f"{meaning} of its grid", cell, rank)


def _test(row: Row, least: float | None) -> Cell:
    if row.status == "diverged":
        return Cell("diverged", good=False, sure=True)
    loss = row.test["loss"]
    interval = " to ".join(map(_loss, above(row.interval, least))) if row.interval else ""
    return Cell(_loss(loss.mean) + (f" ± {_loss(loss.spread)}" if loss.spread is not None else ""), interval)


def _control(control: Row | None) -> Cell:
    if not control or not control.test:
        return Cell("diverged" if control else DASH)
    loss = control.test["loss"]
    return Cell(_loss(loss.mean), f"± {_loss(loss.spread)}" if loss.spread is not None else "")


def _figure(figure: Figure) -> Column:
    def cell(row: Row, _: Row | None) -> Cell:
        return Cell(_number(row.test[figure.name].mean if figure.name in row.test else None, figure.digits))

    return Column(figure.heading, figure.meaning, cell, rank=5)


def above(interval: tuple[float, float], least: float | None) -> tuple[float, float]:
    """The part of an interval in which a loss can lie that is never below ``least``."""
    low, high = interval
    return (low, high) if least is None else (max(low, least), max(high, least))


def helps(row: Row, found: Difference | None) -> bool | None:
    """Whether a difference of the row is below zero on every seed (True), above zero on every seed (False), or neither
    (None). A difference below the digits shown is rounding, not a result.
    """
    if not found:
        return None
    shown = min(5e-5, 5e-3 * abs(row.test["loss"].mean))
    if all(value <= -shown for value in found.values):
        return True
    return False if all(value >= shown for value in found.values) else None


def claim(found: Difference) -> tuple[bool, str]:
    """Whether a difference is significant, and its p in words: neither is said of fewer than ``FEWEST`` seeds, whatever
    the folder of an older version has.
    """
    if len(found.values) < FEWEST:
        return False, ""
    p = "" if found.p is None else "p < 0.001" if found.p < 0.001 else f"p {found.p:.3f}"
    return found.significant is True, p


def _difference(row: Row, found: Difference | None) -> Cell:
    if not found:
        return Cell(DASH)
    sure, p = claim(found)
    good = found.mean < 0 if sure else helps(row, found)
    return Cell(f"{'+' if found.mean >= 0 else ''}{_loss(found.mean)}" + ("*" if sure else ""), p, good, sure)


def _to_target(found: Reached | None, number: Callable[[Reached], float | None], digits: int) -> Cell:
    if not found:
        return Cell(DASH)
    some = found.reached < found.of
    return Cell(_number(number(found), digits), f"{found.reached} of {found.of} seeds" if some else "")


def _equal(found: Equal | None, note: Callable[[Equal], str]) -> Cell:
    if not found or not found.test:
        return Cell(DASH)
    return Cell(_loss(found.test["loss"].mean), note(found))


def table_rows(results: Results, task: str, shown: Iterable[Column], controls: bool = False) -> list[list[Cell]]:
    """The cells of a task's rows, best test loss first: of the contenders, or with ``controls`` of their controls."""
    rows = results.tasks[task]
    made = zip(rows, zip(*(_cells_of(column, rows) for column in shown), strict=True), strict=True)
    return [list(cells) for row, cells in made if row.control == controls]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings under dotted names; a list is one leaf, its items parted by spaces."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list | tuple):
        yield name, "; ".join(value) if value and isinstance(value[0], str) else " ".join(map(str, value))
    else:
        yield name, "" if value is None else value


def _write_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as CSV, in full precision; a field that a record lacks is empty."""
    out = io.StringIO()
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def to_csv(results: Results, task: str) -> str:
    """Everything that a task's rows hold, controls included, in full precision; the trials have a file of their own."""
    apart = ("trials", "spec", "runs")
    rows = results.tasks[task]
    return _write_csv([dict(_flat({k: v for k, v in asdict(row).items() if k not in apart})) for row in rows])


def trials_csv(results: Results, task: str) -> str:
    """Every setting that was tried on a task, and the validation loss it gave; empty if nothing was."""
    trials = [{"name": row.name, **asdict(trial)} for row in results.tasks[task] for trial in row.trials]
    return _write_csv([dict(_flat(trial)) for trial in trials]) if trials else ""
