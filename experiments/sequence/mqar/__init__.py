"""How many pairs, and how far back, a small model can recall: accuracy by number of pairs and length (S2, S4)."""

from collections.abc import Sequence
from pathlib import Path

from experiments.harness import Outcome, markdown
from experiments.sequence.mqar.task import VALUES, AssociativeRecall
from experiments.sequence.recall import CONTENDERS, Plan, Row, tuned

__all__ = ["SIZES", "run"]

SIZES = {
    "quick": (
        AssociativeRecall(cells=((4, 64), (16, 64), (4, 256), (16, 256))),
        ("gated delta",),
        Plan(rates=(0.02,), seeds=(0,), steps=300, trial=0.05),
    ),
    "full": (
        AssociativeRecall(cells=tuple((p, n) for n in (64, 256, 1024) for p in (4, 8, 16, 32, 64) if 4 * p <= n)),
        tuple(CONTENDERS),
        Plan(rates=(0.005, 0.01, 0.02, 0.04), seeds=(0, 1), steps=800, trial=0.25),
    ),
}
HELD = 0.9  # the accuracy from which pairs count as held
COUNTED = 256  # the length at which they are counted


def run(size: str, folder: Path, workers: int) -> Outcome:
    """Train every contender on up to 16 pairs in 64 tokens, judge it on more of both."""
    task, names, plan = SIZES[size]
    rows = tuned(task, names, plan, folder, workers)
    numbers = [pairs for pairs, length in task.cells if length == COUNTED]
    figures: dict[str, float] = {}
    for row in rows:
        figures |= row.figures()
        figures[f"{row.name}/held"] = _held(row, numbers)
        figures[f"{row.name}/known"] = sum(_known(row, numbers[-1])) / len(row.runs)
    return Outcome((_accuracies(rows, task, plan), _capacities(rows, task, numbers)), figures)


def _held(row: Row, numbers: Sequence[int]) -> int:
    """The most pairs held."""
    return max((pairs for pairs in numbers if row.mean(f"{pairs} in {COUNTED}") >= HELD), default=0)


def _known(row: Row, pairs: int) -> list[float]:
    """How many pairs are known, one number a seed, if the answers to the others are guessed among all values."""
    return [pairs * max(0.0, run[f"{pairs} in {COUNTED}"] - 1 / VALUES) / (1 - 1 / VALUES) for run in row.runs]


def _accuracies(rows: Sequence[Row], task: AssociativeRecall, plan: Plan) -> str:
    title = (
        f"Accuracy by number of pairs and length in tokens, mean over {len(plan.seeds)} seeds, after {plan.steps} "
        f"steps on up to {task.most} pairs in up to {task.longest} tokens. A guess among all values is right in "
        f"{1 / VALUES:.2f}."
    )
    names = [f"{pairs} in {length}" for pairs, length in task.cells]
    body = [[row.name, *(f"{row.mean(cell):.2f}" for cell in names)] for row in rows]
    return f"{title}\n\n{markdown(['', *names], body)}"


def _capacities(rows: Sequence[Row], task: AssociativeRecall, numbers: Sequence[int]) -> str:
    most, lengths = numbers[-1], sorted({length for _, length in task.cells})
    head = [
        "",
        "a matrix holds",
        f"held in {COUNTED}",
        f"known of {most} (seeds)",
        *(f"state bytes at {length}" for length in lengths),
        "parameters",
        "ms a step",
        "loss by learning rate",
    ]
    body = [
        [
            row.name,
            "all" if row.name == "transformer" else task.dim // task.heads,
            _held(row, numbers),
            ", ".join(f"{known:.1f}" for known in _known(row, most)),
            *(f"{row.mean(f'bytes at {length}'):,.0f}" for length in lengths),
            f"{row.parameters:,}",
            f"{row.step_ms:.0f}",
            row.tuning(),
        ]
        for row in rows
    ]
    title = (
        f"Capacity. Held: the most pairs with an accuracy of at least {HELD} in {COUNTED} tokens. Known: of {most} "
        "pairs, if the others are guessed. Loss: of the trials, on validation texts."
    )
    return f"{title}\n\n{markdown(head, body)}"
