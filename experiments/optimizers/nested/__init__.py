"""The recommended composition beside tuned Muon: steps to its loss on tasks that no search has seen."""

from pathlib import Path

from experiments.harness import Outcome
from experiments.optimizers.nested.plan import read_plan
from experiments.optimizers.nested.tables import outcome
from experiments.optimizers.nested.work import carry_out

__all__ = ["run"]


def run(size: str, folder: Path, workers: int) -> Outcome:
    """Carry the plan of a size out; a folder that was begun is continued."""
    plan = read_plan(Path(__file__).parent / f"{size}.yaml")
    return outcome(plan, carry_out(plan, folder, workers))
