"""Where to start with each optimizer, from the learning rate that AdamW has: ratios measured on four small tasks."""

from pathlib import Path

from experiments.harness import Outcome
from experiments.optimizers.from_adamw.plan import read_plan
from experiments.optimizers.from_adamw.tables import outcome
from experiments.optimizers.from_adamw.work import carry_out

__all__ = ["run"]


def run(size: str, folder: Path, workers: int) -> Outcome:
    """Carry the plan of a size out; a folder that was begun is continued."""
    plan = read_plan(Path(__file__).parent / f"{size}.yaml")
    return outcome(plan, carry_out(plan, folder, workers))
