"""Hope without one of its parts at a time ([NL] Table 6; S3 to S7, C1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.harness import Outcome, markdown
from experiments.sequence.equal_size import count
from experiments.sequence.text import BYTES
from experiments.sequence.tuned import (
    Entrant,
    Plan,
    TunedModel,
    against,
    difference,
    fitted,
    rates,
    seeds,
    train_all,
)

__all__ = ["PUBLISHED", "entrants", "run"]

DIM = {"quick": 32, "full": 48}
HEADS = 2

PUBLISHED: Mapping[str, float] = {
    "hope": 12.24,
    "without dgd": 13.41,
    "without momentum": 13.58,
    "without weight decay": 13.71,
    "without continuum": 13.04,
    "without inner k": 13.77,
    "without inner v": 13.90,
    "with inner q": 12.19,
}
"""Perplexities of [NL] Table 6."""

PLANS = {
    "quick": Plan(
        rates=(0.01,),
        seeds=(0,),
        steps=16,
        trial=0.1,
        size={"depth": 1, "heads": HEADS, "context": 64, "batch": 4, "validation_windows": 4, "test_windows": 8},
    ),
    "full": Plan(
        rates=(0.012, 0.024),  # the better of two is always at an edge: everyone is tried at three
        seeds=(0, 1, 2),
        steps=128,
        trial=0.25,
        grow=1,
        size={
            "depth": 1,  # so that no other layer does the work of the part that is missing
            "heads": HEADS,
            "context": 256,
            "batch": 4,
            "validation_windows": 24,
            "test_windows": 96,
        },
    ),
}


def entrants(dim: int, depth: int) -> list[Entrant]:
    """Hope with everything, with one thing changed, and a transformer of its size.

    Where a part goes, what is left of the layer keeps its width, so that models differ by the parameters of that part.
    The feed-forward layers that take the continuum memory's place have hidden units for all of its parameters.
    """
    mixers: dict[str, dict[str, Any]] = {
        "hope": {},
        "without dgd": {"dgd": False},
        "without momentum": {"inner_momentum": False},
        "without weight decay": {"retention": False},
        "without inner k": {"self_modifying": ["v", "eta", "alpha"]},
        "without inner v": {"self_modifying": ["k", "eta", "alpha"]},
        "with inner q": {"modify_query": True},
        "without self-modification": {"self_modifying": []},
        "without convolution": {"convolution": 1},
    }
    full = {"inner_momentum": True}
    return [
        Entrant("without continuum", "titans", dim, {"mixer": full, "hidden": 2 * dim}),
        Entrant("continuum frozen", "hope", dim, {"mixer": full, "inner_lr": 0.0, "hidden": 3 * dim // 2}),
        *(Entrant(name, "hope", dim, {"mixer": full | changed}) for name, changed in mixers.items()),
        fitted("transformer", count("hope", BYTES, dim, depth, HEADS, mixer=full), dim, depth, HEADS),
    ]


def run(size: str, folder: Path, workers: int) -> Outcome:
    """All of them, each at its own learning rate, against Hope with everything, seed by seed."""
    plan = PLANS[size]
    courses = train_all(entrants(DIM[size], plan.size["depth"]), plan, folder, workers)
    hope = next(one for one in courses if one.entrant.name == "hope")
    ordered = sorted(courses, key=lambda one: mean(one.test()))
    table, figures = _table(ordered, hope)
    return Outcome((table,), figures)


def _table(courses: Sequence[TunedModel], hope: TunedModel) -> tuple[str, dict[str, float]]:
    found = against(courses, hope)
    rows: list[list[object]] = []
    figures: dict[str, float] = {}
    for one in courses:
        name, bits = one.entrant.name, one.test()
        figures |= {f"{name}/bits": mean(bits), f"{name}/parameters": float(one.parameters)}
        if name in found:
            figures |= {f"{name}/vs_hope": found[name].mean, f"{name}/p": found[name].p}
        published = PUBLISHED.get(name)
        rows.append(
            [
                name,
                f"{one.parameters:,}",
                seeds(bits),
                difference(found.get(name)),
                "" if published is None else f"{published:.2f} (x {published / PUBLISHED['hope']:.3f})",
                rates(one),
            ]
        )
    head = ["model", "parameters", "test bits/byte (seeds)", "vs hope (p)", "[NL] perplexity"]
    return markdown([*head, "lr tried: validation loss"], rows), figures
