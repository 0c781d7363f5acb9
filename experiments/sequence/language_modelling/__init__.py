"""Five language models of equal size on equal text ([NL] Table 2 at the size of a laptop; S3, S4, C1, C6)."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

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
from nestlearn.models import MODELS, match_parameters
from nestlearn.training.statistics import interval, paired

__all__ = ["entrants", "run"]

DEPTH, HEADS = 2, 2
BLOCKS = {"depth": DEPTH, "heads": HEADS}
REFERENCE = "transformer"
DIM = {"quick": 32, "full": 64}

PLANS = {
    "quick": Plan(
        rates=(0.01,),
        seeds=(0,),
        steps=30,
        trial=0.1,
        size={
            **BLOCKS,
            "context": 64,
            "batch": 4,
            "validation_windows": 16,
            "test_windows": 32,
            "long": 256,
            "long_windows": 4,
        },
    ),
    "full": Plan(
        rates=(0.006, 0.012),  # the better of two is always at an edge: everyone is tried at three
        seeds=(0, 1, 2),
        steps=200,
        trial=0.4,
        grow=1,
        size={**BLOCKS, "context": 256, "batch": 8, "test_windows": 128, "long": 2048, "long_windows": 12},
    ),
}


def entrants(dim: int) -> list[Entrant]:
    """The five models, each with about as many parameters as the transformer of width ``dim``.

    `match_parameters` finds the width, in steps of four; the units of the feed-forward layer make up for the rest.
    """
    target = count(REFERENCE, BYTES, dim, DEPTH, HEADS)
    others = [name for name in MODELS if name != REFERENCE]
    widths = {name: match_parameters(name, target, BYTES, DEPTH, HEADS) for name in others}
    found = [fitted(name, target, width, DEPTH, HEADS) for name, width in widths.items()]
    return [*found, Entrant(REFERENCE, REFERENCE, dim)]


def run(size: str, folder: Path, workers: int) -> Outcome:
    """All five, their rates tuned alike; then the same models on windows longer than they were trained on."""
    plan = PLANS[size]
    courses = sorted(train_all(entrants(DIM[size]), plan, folder, workers), key=lambda one: mean(one.test()))
    reference = next(one for one in courses if one.entrant.name == REFERENCE)
    near, figures = _near(courses, reference)
    tables = [f"**Within the context**, {plan.size['context']} bytes; {len(plan.seeds)} seeds.\n\n{near}"]
    far, more = _far(courses, reference, plan.size["context"])
    tables.append(f"**Beyond it**: the same models on windows of {plan.size['long']} bytes.\n\n{far}")
    return Outcome(tuple(tables), figures | more)


def _near(courses: Sequence[TunedModel], reference: TunedModel) -> tuple[str, dict[str, float]]:
    found, rows = against(courses, reference), []
    figures: dict[str, float] = {}
    for one in courses:
        name, bits = one.entrant.name, one.test()
        figures |= {f"{name}/bits": mean(bits), f"{name}/parameters": float(one.parameters)}
        if name in found:
            figures |= {f"{name}/vs_transformer": found[name].mean, f"{name}/p": found[name].p}
        low, high = interval(bits) or (bits[0], bits[0])
        rows.append(
            [
                name,
                one.entrant.dim,
                f"{one.parameters:,}",
                seeds(bits),
                f"{low:.3f} to {high:.3f}",
                difference(found.get(name)),
                f"{one.step_ms:.0f}",
                rates(one),
            ]
        )
    head = ["model", "dim", "parameters", "test bits/byte (seeds)", "95% interval", "vs transformer (p)", "ms/step"]
    return markdown([*head, "lr tried: validation loss"], rows), figures


def _far(courses: Sequence[TunedModel], reference: TunedModel, context: int) -> tuple[str, dict[str, float]]:
    ends = [name for name in reference.runs()[0].test if name.startswith("to_")]
    rows, best = [], reference.test("afresh")
    figures: dict[str, float] = {}
    for one in courses:
        name, beyond, afresh = one.entrant.name, one.test("beyond"), one.test("afresh")
        carried, ahead = paired(beyond, afresh), paired(beyond, best)
        figures |= {
            f"{name}/beyond": mean(beyond),
            f"{name}/afresh": mean(afresh),
            f"{name}/carried": carried.mean,
            f"{name}/beyond_vs_transformer": ahead.mean,
        }
        by_place = [f"{mean(one.test(end)):.3f}" for end in ends]
        rows.append(
            [name, *by_place, f"{mean(beyond):.3f}", f"{mean(afresh):.3f}", difference(carried), difference(ahead)]
        )
    head = ["model", *(f"bytes to {end[3:]}" for end in ends), f"all beyond {context}", "the same, begun afresh"]
    return markdown([*head, "carried - afresh (p)", "carried - transformer afresh (p)"], rows), figures
