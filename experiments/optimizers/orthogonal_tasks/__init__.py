"""Forgetting with and without memories, on tasks that have nothing in common and take turns ([NL] 4.3, O2-O5, O14)."""

from pathlib import Path

from experiments.harness import QUICK, Outcome, compared

__all__ = ["run"]

CONTENDERS = ("Momentum", "DeltaMomentum", "DeepMomentum", "M3", "SecantMomentum", "LayerMomentum")

SIZES = {
    # Four tasks of 25 steps make a round; every trial is at least one round long.
    "quick": {**QUICK, "optimizers": ("DeltaMomentum", "M3"), "steps": 160, "trial_fraction": 0.5},
    "full": {"optimizers": CONTENDERS, "steps": 400, "trial_fraction": 0.5, "seeds": (0, 1, 2, 3, 4)},
}


def run(size: str, folder: Path, workers: int) -> Outcome:
    """Tune on the validation split of all tasks, report test loss and forgetting."""
    outcome, _ = compared(folder, workers, tasks=("orthogonal-tasks",), **SIZES[size])
    return outcome
