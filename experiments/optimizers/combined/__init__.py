"""The three ideas of [S] 5 together, and each alone: P, the objective, an MLP ("all these ideas could be combined")."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from experiments.harness import QUICK, SMALL_SPEECHES, Outcome, compared, markdown
from experiments.optimizers.combined.contenders import CELLS, FACTORS
from experiments.optimizers.nested.plan import read_plan
from nestlearn.contenders import rule_name
from nestlearn.training.statistics import correct, paired

__all__ = ["effects", "run"]

SPEECHES = {"dim": 48, "heads": 4, "context": 64, "validation_windows": 128, "test_windows": 512}

SIZES = {
    "quick": {**QUICK, "sizes": {"speeches": SMALL_SPEECHES}, "steps": 16, "seeds": (0,), "retentions": (0.8,)},
    "full": {
        "steps": 200,
        "seeds": (0, 1, 2, 3, 4),
        "weight_decays": (0.0,),
        "keep": 1,
        "sizes": {"speeches": SPEECHES},
    },
}


def run(size: str, folder: Path, workers: int) -> Outcome:
    """The eight cells on the speeches beside Muon and the recommended composition, tuned alike."""
    cells = {name: f"experiments.optimizers.combined.contenders:{name}" for name in CELLS}
    names = (*cells.values(), _nested())
    outcome, results = compared(folder, workers, tasks=("speeches",), optimizers=names, **SIZES[size])
    by_name = {row.name: row for row in results.tasks["speeches"]}
    losses = {cell: by_name[name].test["loss"].values for cell, name in cells.items() if by_name[name].test}
    table, figures = effects(losses)
    return Outcome((*outcome.tables, table), {**outcome.figures, **figures})


def _nested() -> str:
    """The name of the recommended composition, as the plan of its own comparison has it."""
    plan = read_plan(Path(__file__).parents[1] / "nested" / "full.yaml")
    listed = next(each for each in plan.contenders if each.name == plan.primary)
    return listed.optimizer or rule_name(listed.rule, listed.name)


def effects(losses: Mapping[str, Sequence[float]]) -> tuple[str, dict[str, float]]:
    """What switching each idea on does to the test loss, over the four pairs that differ in it alone; and all three.

    Args:
        losses: by cell, one a seed; a cell that diverged is missing, and with it what needs it.
    """
    found = {}
    for place, factor in enumerate(FACTORS):
        sides: list[list[Sequence[float]]] = [[], []]
        for cell, switches in CELLS.items():
            if cell in losses:
                sides[switches[place]].append(losses[cell])
        if all(len(side) == len(CELLS) // 2 for side in sides):
            off, on = ([mean(values) for values in zip(*side, strict=True)] for side in sides)
            found[factor] = paired(on, off)
    none, every = (next(cell for cell, switches in CELLS.items() if switches == (on,) * 3) for on in (False, True))
    if {none, every} <= set(losses):
        found["all three"] = paired(losses[every], losses[none])
    corrected = dict(zip(found, correct(list(found.values())), strict=True))
    rows, figures = [], {}
    for name, one in corrected.items():
        figures[f"effect/{name}"] = one.mean
        figures[f"effect/{name}/p"] = 1.0 if one.p is None else one.p
        ends = "" if one.interval is None else f"[{one.interval[0]:+.4f}, {one.interval[1]:+.4f}]"
        rows.append([name, f"{one.mean:+.4f}", ends, "" if one.p is None else f"{one.p:.2g}"])
    title = "**What each idea does** to the test loss where it is switched on; below zero it helps."
    return f"{title}\n\n{markdown(['', 'difference', '95% interval', 'p (Holm)'], rows)}", figures
