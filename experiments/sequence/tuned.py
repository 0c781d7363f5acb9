"""Models beside each other: the same text in the same order, each at its own learning rate, several seeds.

Every model is trained at every rate with the first seed for a part of the steps. The rate with the lowest validation
loss is its own; while that is the smallest or the largest tried, one beyond it is tried, up to ``grow`` times. At that
rate all seeds are run at full length, and judged on the test split. A seed fixes the batches for all models, so
differences are taken seed by seed. A run folder that was begun is continued.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.sequence.equal_size import units
from experiments.sequence.text import BYTES
from nestlearn.comparison.course import Course
from nestlearn.comparison.executors import open_pool
from nestlearn.comparison.grid import rounded
from nestlearn.comparison.sweep import run_courses
from nestlearn.contenders import Variant
from nestlearn.training import RunFolder, RunResult, RunSpec
from nestlearn.training.results import Difference
from nestlearn.training.run_folder import write_atomic
from nestlearn.training.statistics import correct, paired

__all__ = ["Entrant", "Plan", "TunedModel", "against", "difference", "fitted", "rates", "seeds", "train_all"]

TASK = "experiments.sequence.text:Text"
OPTIMIZER = "torch.optim.AdamW"


@dataclass(frozen=True)
class Entrant:
    """A model of a comparison: its name in the table, and which of `nestlearn.models` it is."""

    name: str
    network: str
    dim: int
    options: Mapping[str, Any] = field(default_factory=dict)


def fitted(network: str, target: int, dim: int, depth: int, heads: int) -> Entrant:
    """A model for bytes with as many units in its feed-forward layers as bring it nearest to ``target`` parameters."""
    return Entrant(network, network, dim, {"hidden": units(target, network, BYTES, dim, depth, heads)})


@dataclass(frozen=True)
class Plan:
    """What is the same for all models.

    Attributes:
        rates: learning rates tried of each, a factor apart.
        seeds: the first one tunes.
        steps: of AdamW without weight decay; the rate rises over a tenth of them, then falls to zero along a line.
        trial: the part of the steps by which rates are chosen.
        size: fields of the task.
        grow: how often a rate beyond the edge of those tried may be added.
    """

    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: int
    trial: float
    size: Mapping[str, Any]
    grow: int = 0


class TunedModel(Course):
    """The runs of one model."""

    def __init__(self, entrant: Entrant, plan: Plan) -> None:
        super().__init__({})
        self.entrant, self.plan, self.rates = entrant, plan, sorted(plan.rates)

    def spec(self, rate: float, seed: int, *, full: bool) -> RunSpec:
        """The run at a learning rate with a seed: of full length, or a trial."""
        entrant, plan = self.entrant, self.plan
        steps = plan.steps if full else max(2, round(plan.steps * plan.trial))
        size = {**plan.size, "network": entrant.network, "options": dict(entrant.options), "dim": entrant.dim}
        return RunSpec(
            task=TASK,
            variant=Variant(OPTIMIZER),
            settings=(("lr", rate),),
            seed=seed,
            steps=steps,
            fixed=(("weight_decay", 0.0),),
            size=tuple(size.items()),
            points=2,
            full=full,
            warmup=steps // 10,
        )

    def _score(self, rate: float) -> float:
        return self.results[self._trial(rate).key].score

    def _trial(self, rate: float) -> RunSpec:
        return self.spec(rate, self.plan.seeds[0], full=False)

    def _full(self) -> list[RunSpec]:
        return [self.spec(self.rate, seed, full=True) for seed in self.plan.seeds]

    @property
    def rate(self) -> float:
        """The best rate of those tried."""
        return min(self.rates, key=self._score)

    def _stages(self) -> Iterator[list[RunSpec]]:
        yield [self._trial(rate) for rate in self.rates]
        for _ in range(self.plan.grow):
            low, high = self.rates[:2], self.rates[-2:]
            if self.rate == low[0]:
                beyond = rounded(low[0] ** 2 / low[1])
            elif self.rate == high[1]:
                beyond = rounded(high[1] ** 2 / high[0])
            else:
                break
            yield [self._trial(beyond)]
            self.rates = sorted([*self.rates, beyond])
        yield self._full()

    def _estimate(self) -> int:
        return len(self.rates) + len(self.plan.seeds)

    def runs(self) -> list[RunResult]:
        """The runs at the chosen rate, one a seed; call it when the course is done."""
        return [self.results[spec.key] for spec in self._full()]

    @property
    def parameters(self) -> int:
        """How many the model has."""
        return self.runs()[0].parameters

    @property
    def step_ms(self) -> float:
        """Milliseconds of a training step, the median of the fastest run."""
        return min(run.step_ms for run in self.results.values())

    def tried(self) -> dict[float, float]:
        """Validation loss of the trial, nats a byte, of every rate; infinite where training diverged."""
        return {rate: self._score(rate) for rate in self.rates}

    def test(self, figure: str = "bits") -> list[float]:
        """A figure of the test split, one a seed; infinite where training diverged."""
        return [run.test.get(figure, float("inf")) for run in self.runs()]


def train_all(entrants: Sequence[Entrant], plan: Plan, folder: Path, workers: int) -> list[TunedModel]:
    """Train all entrants as the plan says; finished runs of the folder are kept as they are."""
    courses = [TunedModel(entrant, plan) for entrant in entrants]
    begun = (folder / "config.yaml").is_file()
    files = RunFolder.open(folder) if begun else RunFolder.create(folder)
    known = files.compact() if begun else {}
    write_atomic(files.config, json.dumps({"plan": asdict(plan), "entrants": [asdict(one) for one in entrants]}) + "\n")

    def tell(result: RunResult, reused: bool, total: int) -> None:
        name = next(one.entrant.name for one in courses if result.key in one.results)
        outcome = result.reason or f"{result.validation['bits']:.4f} bits"
        kept = " (kept)" if reused else ""
        what = f"{name}, lr {result.settings['lr']:g}, seed {result.seed}, {result.steps} steps"
        print(f"{what}: {outcome}{kept}", file=sys.stderr, flush=True)

    with open_pool("processes", workers) as pool:
        run_courses(courses, files, pool, known=known, progress=tell)
    return courses


def against(courses: Sequence[TunedModel], reference: TunedModel, figure: str = "bits") -> dict[str, Difference]:
    """By name the difference of every model to the reference, seed by seed, with p by Holm over all of them.

    A model that diverged has no difference.
    """
    others = [one for one in courses if one is not reference and mean(one.test(figure)) < float("inf")]
    found = {one.entrant.name: paired(one.test(figure), reference.test(figure)) for one in others}
    return dict(zip(found, correct(list(found.values())), strict=True))


def seeds(values: Sequence[float]) -> str:
    """A cell with the mean and the values behind it."""
    return f"{mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"


def difference(found: Difference | None) -> str:
    """A cell with a mean difference and its p, corrected where it was; empty if there is none."""
    if not found:
        return ""
    p = found.p_alone if found.p is None else found.p
    return f"{found.mean:+.3f}" + ("" if p is None else f" ({p:.2g})")


def rates(one: TunedModel) -> str:
    """A cell with the validation loss at each learning rate tried, the best one in bold."""
    told = [(f"**{rate:g}**" if rate == one.rate else f"{rate:g}", loss) for rate, loss in one.tried().items()]
    return ", ".join(f"{rate}: {loss:.3f}" for rate, loss in told)
