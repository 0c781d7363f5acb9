"""Does a momentum that is an MLP help a byte-level transformer, beside its control (O5, O6, O8)?"""

from pathlib import Path

from experiments.harness import QUICK, SMALL_SPEECHES, Outcome, compared

__all__ = ["run"]

SPEECHES = {"dim": 48, "heads": 4, "context": 64, "validation_windows": 128, "test_windows": 512}

SIZES = {
    "quick": {**QUICK, "sizes": {"speeches": SMALL_SPEECHES}, "optimizers": ("DeepMomentum",), "steps": 24},
    "full": {
        "optimizers": ("DeepMomentum", "DeepMomentum2", "DeepAdam"),
        "steps": 240,
        "seeds": (0, 1, 2, 3, 4),
        "weight_decays": (0.0,),
        "keep": 1,
        "sizes": {"speeches": SPEECHES},
    },
}


def run(size: str, folder: Path, workers: int) -> Outcome:
    """Deep memories and the same optimizers with the MLP silenced, all tuned alike."""
    outcome, _ = compared(folder, workers, tasks=("speeches",), **SIZES[size])
    return outcome
