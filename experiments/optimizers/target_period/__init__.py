"""An expensive P every 1, 4 and 16 steps, with and without a memory in between ([S] 5, O3, O5, O9, O10)."""

from pathlib import Path

from experiments.harness import QUICK, SMALL_SPEECHES, Outcome, compared
from experiments.optimizers.target_period.contenders import PERIODS

__all__ = ["run"]

KINDS = ("kept", "kronecker", "orthogonal")
SPEECHES = {"dim": 48, "heads": 4, "context": 64, "validation_windows": 128, "test_windows": 512}

SIZES = {
    "quick": {**QUICK, "sizes": {"speeches": SMALL_SPEECHES}, "steps": 24, "retentions": (0.8,)},
    "full": {
        "steps": 200,
        "seeds": (0, 1, 2),
        "weight_decays": (0.0,),
        "keep": 1,
        "sizes": {"speeches": SPEECHES},
    },
}
SHOWN = (("kept", 1), ("kept", 16), ("kronecker", 16))


def run(size: str, folder: Path, workers: int) -> Outcome:
    """Every kind at every period on the speeches, tuned alike; a control is the linear momentum without the MLP."""
    wanted = SHOWN if size == "quick" else [(kind, period) for kind in KINDS for period in PERIODS]
    names = tuple(f"experiments.optimizers.target_period.contenders:{kind}_{period}" for kind, period in wanted)
    outcome, _ = compared(folder, workers, tasks=("speeches",), optimizers=names, **SIZES[size])
    return outcome
