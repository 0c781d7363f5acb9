"""Nesting of depth 0 to 3: no MLP, an MLP, an MLP written by MLPs, and once more (O5, O6)."""

from pathlib import Path

from experiments.harness import QUICK, SMALL_SPEECHES, Outcome, compared

__all__ = ["run"]

DEPTHS = {"quick": (1, 3), "full": (1, 2, 3)}
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


def run(size: str, folder: Path, workers: int) -> Outcome:
    """Depths on the speeches, tuned alike; ``depth_1 (control)`` is depth 0."""
    names = tuple(f"experiments.optimizers.depth.contenders:depth_{depth}" for depth in DEPTHS[size])
    outcome, _ = compared(folder, workers, tasks=("speeches",), optimizers=names, **SIZES[size])
    return outcome
