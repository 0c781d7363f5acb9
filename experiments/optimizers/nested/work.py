"""Carry the plan out in a run folder: search, runs at the horizon, runs at other lengths, times.

Every run is a line of ``metrics.jsonl`` in the folder, found again by everything on which its result depends, so a
folder that was begun is continued, whatever part of the plan it was begun for: contenders may be searched one by one,

    python -m experiments.optimizers.nested.begin --out runs/nested --only Muon,AdamW

and the whole, ``python -m experiments.optimizers.nested --size full --out runs/nested``, goes on from there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Any

from experiments.optimizers.nested.ladder import Arrival, Ladder
from experiments.optimizers.nested.plan import Entrant, Place, Plan, Values, spec_of
from experiments.optimizers.nested.search import EVERYWHERE, Tuning
from experiments.optimizers.nested.timing import Times, measure
from nestlearn.comparison.course import Course
from nestlearn.comparison.executors import open_pool
from nestlearn.comparison.grid import rounded
from nestlearn.comparison.sweep import run_courses
from nestlearn.training import RunFolder, RunResult, RunSpec, to_yaml
from nestlearn.training.run_folder import write_atomic

__all__ = ["RETUNED", "Found", "Runs", "carry_out", "search"]

RETUNED = "retuned"
"""Added to the name of the reference, for the row whose learning rate was tuned on the unseen task itself."""


class Runs(AbstractContextManager["Runs"]):
    """A run folder, new or begun, workers, and all results known."""

    def __init__(self, plan: Plan, folder: Path, workers: int) -> None:
        begun = (folder / "config.yaml").is_file()
        self.files = RunFolder.open(folder) if begun else RunFolder.create(folder)
        self.known: dict[str, RunResult] = self.files.compact() if begun else {}
        write_atomic(self.files.config, to_yaml(plan))
        self._workers = workers

    def __enter__(self) -> Runs:
        self._open = open_pool("processes", self._workers)
        self._pool = self._open.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def carry(self, courses: Sequence[Course]) -> None:
        """Run the courses to their end."""
        run_courses(courses, self.files, self._pool, known=self.known, progress=self._tell)
        for course in courses:
            self.known |= course.results

    def _tell(self, result: RunResult, reused: bool, total: int) -> None:
        if not reused:
            outcome = result.reason or f"{result.validation['loss']:.4f}"
            print(f"{result.key} of about {total}: {outcome}", file=sys.stderr, flush=True)

    @property
    def hours(self) -> float:
        """Hours that all known runs trained, each on one core."""
        return sum(result.train[-1].seconds for result in self.known.values() if result.train) / 3600


class Independent(Course):
    """Runs that depend on nothing; one that is asked for twice is run once."""

    def __init__(self, specs: Sequence[RunSpec]) -> None:
        super().__init__({})
        self._specs = list({spec.key: spec for spec in specs}.values())

    def _stages(self) -> Iterator[list[RunSpec]]:
        yield self._specs

    def _estimate(self) -> int:
        return len(self._specs)


class Retune(Course):
    """The reference's learning rate on an unseen task, around the one that the search chose, by whole runs."""

    def __init__(self, place: Place, entrant: Entrant, values: Values, plan: Plan) -> None:
        super().__init__({})
        self.place, self.entrant, self.values, self.plan = place, entrant, values, plan
        self.rates = sorted(rounded(values["lr"] * factor) for factor in plan.judge.retune)

    def _runs(self, rate: float) -> list[RunSpec]:
        values = {**self.values, "lr": rate}
        return [spec_of(self.place, self.entrant, values, seed) for seed in self.plan.judge.retune_seeds]

    def _score(self, rate: float) -> float:
        return mean(self.results[spec.key].score for spec in self._runs(rate))

    def _stages(self) -> Iterator[list[RunSpec]]:
        yield [spec for rate in self.rates for spec in self._runs(rate)]
        for _ in range(self.plan.search.grow):
            beyond = {0: rounded(self.rates[0] ** 2 / self.rates[1]), -1: rounded(self.rates[-1] ** 2 / self.rates[-2])}
            at = next((end for end in beyond if self.rate == self.rates[end]), None)
            if at is None:
                return
            yield self._runs(beyond[at])
            self.rates = sorted([*self.rates, beyond[at]])

    def _estimate(self) -> int:
        return len(self.rates) * len(self.plan.judge.retune_seeds)

    @property
    def rate(self) -> float:
        """The best of the rates tried."""
        return min(self.rates, key=self._score)

    def chosen(self) -> Values:
        """The setting with that rate; call it when the course is done."""
        return {**self.values, "lr": self.rate}


@dataclass
class Found:
    """What came of the plan.

    Attributes:
        tuned: the search of each contender.
        values: on each task, the setting of each contender, the retuned reference among them.
        horizon: on each task, the runs of each contender at the horizon, one a seed.
        arrivals: on each task, when each contender was at the reference's loss, one a seed.
        harder: on each unseen task, when the primary contender was at the retuned reference's loss.
        times: on each task, what a step of each contender takes.
        hours: of training, on one core.
    """

    tuned: dict[str, Tuning]
    values: dict[str, dict[str, Values]] = field(default_factory=dict)
    horizon: dict[str, dict[str, list[RunResult]]] = field(default_factory=dict)
    arrivals: dict[str, dict[str, list[Arrival]]] = field(default_factory=dict)
    harder: dict[str, list[Arrival]] = field(default_factory=dict)
    times: dict[str, dict[str, Times]] = field(default_factory=dict)
    hours: float = 0.0


def search(plan: Plan, runs: Runs, only: Sequence[str] = ()) -> dict[str, Tuning]:
    """The searches of all contenders, or of those named.

    Raises:
        ValueError: there is no contender of this name.
    """
    entrants = {entrant.name: entrant for entrant in plan.entrants()}
    for name in only:
        if name not in entrants:
            raise ValueError(f"expected names among {', '.join(entrants)}, got {name!r}")
    courses = {name: Tuning(entrants[name], plan) for name in only or entrants}
    runs.carry(list(courses.values()))
    return courses


def carry_out(plan: Plan, folder: Path, workers: int) -> Found:
    """Run all of the plan that the folder does not hold yet."""
    entrants = {entrant.name: entrant for entrant in plan.entrants()}
    again = f"{plan.against} {RETUNED}"
    with Runs(plan, folder, workers) as runs:
        found = Found(search(plan, runs))
        carried = found.tuned[plan.against].chosen()
        retunes = {name: Retune(place, entrants[plan.against], carried, plan) for name, place in plan.unseen.items()}
        runs.carry(list(retunes.values()))
        for name, place in plan.places.items():
            where = name if name in plan.searched else EVERYWHERE
            some = (plan.against, plan.primary) if place.pair else entrants
            found.values[name] = {label: found.tuned[label].chosen(where) for label in some}
            if name in retunes:
                found.values[name][again] = retunes[name].chosen()
        entrants[again] = entrants[plan.against]
        _at_horizon(plan, runs, entrants, found)
        _at_lengths(plan, runs, entrants, found, again)
        found.hours = runs.hours
    # The workers are gone: nothing of ours runs beside what is timed.
    _time(plan, folder, entrants, found)
    return found


def _seeds(plan: Plan, label: str) -> tuple[int, ...]:
    """Those with which a contender is judged: all for the two of the primary comparison, the retuned reference too."""
    of_pair = label in (plan.primary, plan.against, f"{plan.against} {RETUNED}")
    return plan.judge.seeds if of_pair else plan.judge.seeds[: plan.judge.beside]


def _at_horizon(plan: Plan, runs: Runs, entrants: Mapping[str, Entrant], found: Found) -> None:
    specs = {
        (name, label): [spec_of(place, entrants[label], values, seed, test=True) for seed in _seeds(plan, label)]
        for name, place in plan.places.items()
        for label, values in found.values[name].items()
    }
    runs.carry([Independent([spec for every in specs.values() for spec in every])])
    for (name, label), every in specs.items():
        found.horizon.setdefault(name, {})[label] = [runs.known[spec.key] for spec in every]
        if label == plan.against and any(run.reason for run in found.horizon[name][label]):
            raise ValueError(f"{label} diverged on {name}: there is no loss to reach")


def _length(place: Place, entrant: Entrant, values: Values, seed: int, length: float) -> RunSpec:
    return spec_of(place, entrant, values, seed, length, test=length == 1)


def _at_lengths(plan: Plan, runs: Runs, entrants: Mapping[str, Entrant], found: Found, again: str) -> None:
    ladders: dict[tuple[str, str], list[Ladder]] = {}
    for name, place in plan.places.items():
        references = [label for label in (plan.against, again) if label in found.values[name]]
        for label, values in found.values[name].items():
            if label in references:
                continue
            goals = references if label == plan.primary else [plan.against]
            ladders[name, label] = [
                Ladder(
                    partial(_length, place, entrants[label], values, seed),
                    plan.judge.lengths,
                    [found.horizon[name][goal][index].score for goal in goals],
                    runs.known,
                )
                for index, seed in enumerate(_seeds(plan, label))
            ]
    runs.carry([ladder for every in ladders.values() for ladder in every])
    for (name, label), every in ladders.items():
        reached = [ladder.arrivals() for ladder in every]
        found.arrivals.setdefault(name, {})[label] = [arrivals[0] for arrivals in reached]
        if label == plan.primary and name in plan.unseen:
            found.harder[name] = [arrivals[-1] for arrivals in reached]


def _time(plan: Plan, folder: Path, entrants: Mapping[str, Entrant], found: Found) -> None:
    """Times of all contenders on every task, kept in ``times.json``."""
    path = folder / "times.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, place in plan.places.items():
        specs = {
            label: spec_of(place, entrants[label], values, plan.judge.seeds[0])
            for label, values in found.values[name].items()
            if not label.endswith(RETUNED)
        }
        keys = {label: spec.key for label, spec in specs.items()}
        if known.get(name, {}).get("runs") != keys:
            times = measure(specs, plan.against, plan.judge.timing_block, plan.judge.timing_rounds)
            known[name] = {"runs": keys, "times": {label: asdict(one) for label, one in times.items()}}
            write_atomic(path, json.dumps(known, indent=1) + "\n")
        found.times[name] = {label: Times(**one) for label, one in known[name]["times"].items()}
