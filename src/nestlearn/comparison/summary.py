"""The tuned table as plain data: what ``results.json`` holds and every report is made from.

Numbers are reported for the setting that the validation split chose: test figures as mean over seeds with an interval
and as single values, the differences to the control, AdamW and Muon seed by seed with a test, the way to the
baseline's loss, and warnings: where the best value lay at an edge that the grid could not leave, and where the full
runs end far above the trial by which they were chosen. Losing and diverged contenders have rows like all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import mean

from nestlearn.comparison.compare_settings import CompareSettings
from nestlearn.comparison.grid import budget
from nestlearn.comparison.matched import Matched, total_bytes
from nestlearn.comparison.search import Search
from nestlearn.contenders import BASELINE, MUON, Contender, Variant
from nestlearn.training import Point, Results, Row, RunResult, RunSpec
from nestlearn.training.results import Difference, Equal, Reached, Sample, Trial
from nestlearn.training.statistics import correct, figures, interval, paired

__all__ = ["reach", "summarise"]

FAR = 1.5
"""Times the loss of its own trial at which a full run is worth a warning: in the demo one search of 22 is above it
(1.74, a memory that ends last), and the next is at 1.31.
"""


def reach(result: RunResult, target: float) -> tuple[float, float] | None:
    """The step and the seconds at which a run's validation loss first was at ``target`` or below, interpolated
    linearly from the look before; None if it never was.
    """
    before: Point | None = None
    for point in result.curve:
        if point.loss is not None and point.loss <= target:
            if before is None or before.loss is None:
                return point.step, point.seconds
            share = (before.loss - target) / (before.loss - point.loss)
            step = before.step + share * (point.step - before.step)
            return step, before.seconds + share * (point.seconds - before.seconds)
        before = point
    return None


def _reached(results: Sequence[RunResult], target: float | None) -> Reached | None:
    """How the seeds came to the target."""
    if target is None:
        return None
    reached = [found for result in results if (found := reach(result, target)) is not None]
    return Reached(
        target=target,
        steps=mean(step for step, _ in reached) if reached else None,
        seconds=mean(seconds for _, seconds in reached) if reached else None,
        reached=len(reached),
        of=len(results),
    )


def _equal(specs: list[RunSpec] | None, results: Mapping[str, RunResult]) -> Equal | None:
    """What the runs at equal seconds or bytes gave."""
    if not specs:
        return None
    runs = [results[spec.key] for spec in specs]
    return Equal(
        steps=specs[0].steps,
        size=dict(specs[0].size),
        parameters=runs[0].parameters,
        bytes=total_bytes(specs[0], runs[0]),
        seconds=mean(run.curve[-1].seconds if run.curve else 0.0 for run in runs),
        status="diverged" if any(run.status == "diverged" for run in runs) else "finished",
        test=figures(runs, "test"),
        runs=tuple(run.key for run in runs),
    )


def _row(search: Search, matched: Matched | None) -> Row:
    """The row of a search, as far as it needs no other one."""
    specs, trials, contender = search.chosen(), search.trials(), search.contender
    runs = [search.results[spec.key] for spec in specs]
    every = [result for result in search.results.values() if result.status == "finished"]
    diverged = [result.reason for result in runs if result.status == "diverged"]
    control_name, control_is = (None, "") if search.control else _control_of(contender)
    ends, test, validation = search.edges(), figures(runs, "test"), figures(runs, "validation")
    return Row(
        name=search.variant.name,
        contender=contender.name,
        control=search.control,
        control_name=control_name,
        control_is=control_is,
        family=contender.family,
        equation=contender.equation,
        about=contender.about,
        status="diverged" if diverged else "finished",
        reason=diverged[0] if diverged else "",
        settings=runs[0].settings,
        fixed=dict(specs[0].fixed),
        edges=tuple(f"{name} at the {end} edge" for name, end in ends.items()),
        warnings=(
            *(
                f"the best {name} ({runs[0].settings[name]:g}) is at the {end} edge of what was tried"
                for name, end in ends.items()
            ),
            *_above_trial(search, validation),
        ),
        grid=search.axes,
        trials=tuple(Trial(trial.settings, trial.status, trial.validation.get("loss")) for trial in trials),
        trials_count=len(trials),
        diverged_trials=sum(trial.status == "diverged" for trial in trials),
        validation=validation,
        test=test,
        interval=interval(test["loss"].values) if test else None,
        equal_time=_equal(matched.at_time, matched.results) if matched else None,
        equal_bytes=_equal(matched.at_bytes, matched.results) if matched else None,
        step_ms=min((result.step_ms for result in every), default=None),
        optimizer_ms=min((result.optimizer_ms for result in every), default=None),
        state_bytes=runs[0].state_bytes,
        parameters=runs[0].parameters,
        runs=tuple(result.key for result in runs),
        spec=specs[0].to_plain(),
    )


def _above_trial(search: Search, validation: Mapping[str, Sample]) -> Iterator[str]:
    """The warning that more steps made the chosen setting worse than its trial, beyond the spread of the seeds."""
    if not validation:
        return
    chosen, loss = search.chosen()[0], validation["loss"]
    trial = search.trial(chosen.settings)
    if loss.mean > FAR * trial.score >= 0 and loss.mean - (loss.spread or 0.0) > trial.score:
        yield (
            f"the full runs end at a validation loss of {loss.mean:.3g}, far above the {trial.score:.3g} of the trial "
            f"that chose them ({trial.steps} of {chosen.steps} steps): more steps make these settings worse, which "
            "longer trials would see (--set trial_fraction=1)"
        )


def _control_of(contender: Contender) -> tuple[str | None, str]:
    """The name of a contender's control, and what makes it one."""
    if contender.control is None:
        return None, ""
    if isinstance(contender.control, Variant):
        return contender.control.name, contender.control.name
    return Variant(contender.name, True).name, ", ".join(f"{k}={v}" for k, v in contender.control.items())


def _difference(row: Row, other: Row | None) -> Difference | None:
    """Test loss of ``row`` minus that of ``other``, seed by seed; negative is better than the other."""
    if other is None or other is row or not row.test or not other.test:
        return None
    return paired(row.test["loss"].values, other.test["loss"].values)


def _column(rows: list[Row], others: list[Row | None]) -> list[Difference | None]:
    """The differences of the rows to others, those of the contenders with a corrected p; a control makes no claim."""
    found = [_difference(row, other) for row, other in zip(rows, others, strict=True)]
    claims = {i: one for i, one in enumerate(found) if one and not rows[i].control}
    claims = dict(zip(claims, correct(list(claims.values())), strict=True))
    return [claims.get(i, one) for i, one in enumerate(found)]


def _compared(rows: list[Row]) -> list[Row]:
    """The rows with the differences between them."""
    by_name = {row.name: row for row in rows}
    control = _column(rows, [by_name.get(row.control_name or "") for row in rows])
    baseline, muon = (_column(rows, [by_name.get(name)] * len(rows)) for name in (BASELINE, MUON))
    return [
        replace(row, against_control=one, against_baseline=two, against_muon=three)
        for row, one, two, three in zip(rows, control, baseline, muon, strict=True)
    ]


def _task_rows(searches: list[Search], matched: Mapping[int, Matched]) -> tuple[Row, ...]:
    rows = _compared([_row(search, matched.get(id(search))) for search in searches])
    baseline = next((row for row in rows if row.name == BASELINE), None)
    target = baseline.validation["loss"].mean if baseline and baseline.validation else None
    rows = [
        replace(row, to_target=_reached([search.results[key] for key in row.runs], target))
        for search, row in zip(searches, rows, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: row.test["loss"].mean if row.test else float("inf")))


def summarise(searches: list[Search], settings: CompareSettings, matched: list[Matched] | None = None) -> Results:
    """The table of a finished comparison, contenders and controls, best test loss first; ``docs/compare.md`` explains
    the fields of a row.
    """
    of_search = {id(one.search): one for one in matched or ()}
    by_task: dict[str, list[Search]] = {}
    for search in searches:
        by_task.setdefault(search.task, []).append(search)
    tasks = {task: _task_rows(own, of_search) for task, own in by_task.items()}
    return Results(
        baseline=BASELINE,
        muon=MUON,
        preset=settings.preset,
        search=settings.search,
        budget=budget(settings),
        correction="Holm, over the contenders of a task",
        warnings=tuple(
            f"{task}, {row.name}: {text}" for task, rows in tasks.items() for row in rows for text in row.warnings
        ),
        tasks=tasks,
    )
