"""Made-up results of made-up trials, for tests of what is done with results."""

import math

from nestlearn.comparison import PRESETS, CompareSettings, Search
from nestlearn.comparison.course import Course
from nestlearn.contenders import CONTENDERS
from nestlearn.training import Row, RunResult, RunSpec, merge

__all__ = ["SETTINGS", "bowl", "outcome", "row", "run", "search"]

SETTINGS = merge(
    PRESETS["demo"],
    {
        "tasks": ["digits"], "steps": 40, "lr_points": 5, "retentions": [0.8, 0.9, 0.95], "trial_fraction": 0.25,
        "grow": 0, "seeds": [0, 1],
    },
)  # fmt: skip


def row(name: str, *runs: str) -> Row:
    """The row of a contender that has these runs and nothing else to tell."""
    return Row(
        name=name, contender=name, control=False, family="", equation="", about="", status="finished", settings={},
        fixed={}, validation={}, test={}, interval=None, step_ms=None, optimizer_ms=None, state_bytes=0, parameters=1,
        runs=runs, spec={},
    )  # fmt: skip


def outcome(spec: RunSpec, validation: float, test: float = 1.0) -> RunResult:
    diverged = math.isinf(validation)
    figures = {"accuracy": 90.0}
    return RunResult(
        key=spec.key,
        task=spec.task,
        variant=spec.variant.name,
        settings=dict(spec.settings),
        seed=spec.seed,
        steps=spec.steps,
        full=spec.full,
        status="diverged" if diverged else "finished",
        validation={} if diverged else {"loss": validation, **figures},
        test={"loss": test, **figures} if spec.full and not diverged else {},
        parameters=10,
        step_ms=1.0,
    )


def run(course: Course, validation, test=lambda spec: 1.0, order=lambda specs: specs) -> list[list[RunSpec]]:
    """Feed a course with made-up results; returns the stages it asked for."""
    stages = []
    while fresh := course.next():
        stages.append(fresh)
        for spec in order(fresh):
            course.record(outcome(spec, validation(spec), test(spec)))
    return stages


def search(name: str = "Momentum", control: bool = False, settings: CompareSettings = SETTINGS) -> Search:
    return Search("digits", CONTENDERS[name], control, settings)


def bowl(**best: float):
    """A loss that is lowest at the given settings, in logarithms (of 1 - retention)."""

    def loss(spec: RunSpec) -> float:
        total = 0.0
        for name, value in spec.settings:
            if name in best:
                a, b = (1 - value, 1 - best[name]) if name == "retention" else (value, best[name])
                total += abs(math.log(max(a, 1e-9) / max(b, 1e-9)))
        return total

    return loss
