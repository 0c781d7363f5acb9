"""Needles in speeches: accuracy by length, up to 16 times that of training, and by depth (S1, S2, S4)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.harness import Outcome, markdown
from experiments.sequence.needle.task import NEEDLES, VALUES, Haystack
from experiments.sequence.recall import CONTENDERS, Plan, Row, tuned

__all__ = ["SIZES", "run"]

SIZES = {
    "quick": (
        Haystack(lengths=(128, 512)),
        ("linear",),
        Plan(rates=(0.02,), seeds=(0,), steps=250, trial=0.05),
    ),
    "full": (
        Haystack(lengths=(128, 512, 2048)),
        tuple(name for name in CONTENDERS if name != "hope, default chunk"),
        Plan(rates=(0.01, 0.02, 0.04), seeds=(0, 1), steps=400, trial=0.25),
    ),
}
# Attention has not begun to find needles when the memories do: a row for what it learns in the end.
LONGER = Plan(rates=(0.01, 0.02, 0.04), seeds=(0, 1), steps=1200, trial=1 / 3)


def run(size: str, folder: Path, workers: int) -> Outcome:
    """Train every contender on texts of up to 128 tokens, judge it on longer ones."""
    task, names, plan = SIZES[size]
    rows = tuned(task, names, plan, folder, workers)
    if size == "full":
        longer = tuned(task, ("transformer",), LONGER, folder, workers)
        rows += [replace(row, name=f"transformer, {LONGER.steps} steps") for row in longer]
    figures = {name: value for row in rows for name, value in row.figures().items()}
    return Outcome((_accuracies(rows, task, plan), _models(rows, task)), figures)


def _accuracies(rows: Sequence[Row], task: Haystack, plan: Plan) -> str:
    title = (
        f"Accuracy by length in tokens, mean over {len(plan.seeds)} seeds, after {plan.steps} steps on texts of up to "
        f"{task.longest} tokens; at the greatest length by depth too, part 1 being the farthest from the question. A "
        f"guess among all values is right in {1 / VALUES:.2f}, one among the values of the text in {1 / NEEDLES:.2f}."
    )
    last = task.lengths[-1]
    names = [f"at {length}" for length in task.lengths] + [f"at {last}, part {n + 1}" for n in range(NEEDLES)]
    body = [[row.name, *(f"{row.mean(name):.2f}" for name in names)] for row in rows]
    return f"{title}\n\n{markdown(['', *names], body)}"


def _models(rows: Sequence[Row], task: Haystack) -> str:
    last = task.lengths[-1]
    sizes = [f"state bytes at {length}" for length in task.lengths]
    head = ["", f"at {last}, seed by seed", *sizes, "parameters", "ms a step", "loss by learning rate"]
    body = [
        [
            row.name,
            ", ".join(f"{run[f'at {last}']:.2f}" for run in row.runs),
            *(f"{row.mean(f'bytes at {length}'):,.0f}" for length in task.lengths),
            f"{row.parameters:,}",
            f"{row.step_ms:.0f}",
            row.tuning(),
        ]
        for row in rows
    ]
    return f"States and settings; the loss is that of the trials, on validation texts.\n\n{markdown(head, body)}"
