"""Which sequence models learn six formal languages, and hold what they learned on longer strings ([NL] Table 5)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.harness import Outcome, workers_of_one_thread
from experiments.sequence.formal_languages.contenders import CONTENDERS
from experiments.sequence.formal_languages.languages import LANGUAGES
from experiments.sequence.formal_languages.tables import details, figures, overview, tuning_loss, tuning_table
from experiments.sequence.formal_languages.training import Job, Result, judge

__all__ = ["run"]

ALL = tuple(LANGUAGES)
TUNED_ON = ("parity", "shuffle2")
TUNING_SEED = 100


@dataclass(frozen=True)
class Size:
    """What differs between the sizes: who runs on what, seeds, strings a bin, bins, steps of a run and of tuning, and
    the fields of `Job` that are not as they come.
    """

    languages: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    strings: int
    bins: int
    steps: int
    tuning: int
    training: Mapping[str, Any] = field(default_factory=dict)


CONTROLS = {
    "Hope, max_eta 1": ("parity",),
    "Hope, one memory": ("parity", "shuffle2"),
    "DeltaNet, max_eta 2": ("parity",),
}

SIZES = {
    "quick": Size(
        {"Hope": ("parity", "anbn"), "Hope, max_eta 1": ("parity",), "Transformer": ("parity",)},
        seeds=(0,),
        strings=100,
        bins=2,
        steps=120,
        tuning=1,
        training={"longest": 20, "check_every": 10, "solved": 1e-2, "anneal": 40},
    ),
    "full": Size({name: CONTROLS.get(name, ALL) for name in CONTENDERS}, (0, 1, 2), 300, 3, 400, 100),
}


def run(size: str, folder: Path, workers: int) -> Outcome:
    """Tune, train and judge; ``folder/runs.jsonl`` has a line for each run, in the order in which they were planned."""
    chosen = SIZES[size]
    folder.mkdir(parents=True, exist_ok=True)
    with workers_of_one_thread(workers) as pool:
        tried = _kept(pool, _tuning(chosen), folder / "tuning.jsonl")
        results = _kept(pool, _jobs(chosen, _best(chosen, tried)), folder / "runs.jsonl")
    return Outcome((overview(results), tuning_table(tried), details(results)), figures(results))


def _kept(pool: Executor, jobs: list[Job], file: Path) -> list[Result]:
    """The results of all jobs; those that ``file`` has from a run that was cut off are not done again."""
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    known = {job: result for result in found for job in jobs if asdict(job).items() <= result.items()}
    missing = [job for job in jobs if job not in known]
    with file.open("a", encoding="utf-8", buffering=1) as lines:
        for job, result in zip(missing, pool.map(judge, missing), strict=True):
            lines.write(json.dumps(result) + "\n")
            known[job] = result
    return [known[job] for job in jobs]


def _tuning(size: Size) -> list[Job]:
    return [
        Job(name, language, rate, TUNING_SEED, size.tuning, **size.training)
        for name in size.languages
        if CONTENDERS[name].rate_of is None
        for rate in CONTENDERS[name].rates
        for language in TUNED_ON
    ]


def _best(size: Size, tried: list[Result]) -> dict[str, float]:
    """Of each contender the rate with the least loss in distribution, as the geometric mean over languages."""
    best = {}
    for name in size.languages:
        own = CONTENDERS[name].rate_of or name
        score = {rate: tuning_loss(tried, own, rate) for rate in CONTENDERS[own].rates}
        best[name] = min(score, key=score.__getitem__)
    return best


def _jobs(size: Size, rates: Mapping[str, float]) -> list[Job]:
    return [
        Job(name, language, rates[name], seed, size.steps, size.strings, size.bins, **size.training)
        for name, languages in size.languages.items()
        for language in languages
        for seed in size.seeds
    ]
