"""M3 beside AdamW and Muon for a small vision transformer on Fashion-MNIST ([NL] Figure 11 reduced, O14)."""

from pathlib import Path

from experiments.harness import QUICK, Outcome, compared

__all__ = ["run"]

SIZES = {
    "quick": {
        **QUICK,
        "steps": 30,
        "sizes": {"fashion-mnist": {"network": "vit", "dim": 32, "test_images": 500, "validation_images": 250}},
    },
    "full": {
        "steps": 250,
        "points": 4,
        "keep": 1,
        "sizes": {"fashion-mnist": {"network": "vit", "dim": 32, "depth": 3, "validation_images": 1000}},
    },
}


def run(size: str, folder: Path, workers: int) -> Outcome:
    """M3, its control without the slow memory, Muon, AdamW and their controls, all tuned alike."""
    outcome, _ = compared(folder, workers, tasks=("fashion-mnist",), optimizers=("M3",), **SIZES[size])
    return outcome
