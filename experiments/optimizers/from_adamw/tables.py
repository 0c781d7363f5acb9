"""From what was found to figures and tables: ratios of rates, losses beside AdamW's, and one advice for all tasks."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean, median_low

from experiments.harness import Outcome, markdown
from experiments.optimizers.from_adamw.plan import ADAMW, Plan
from experiments.optimizers.from_adamw.work import Found, Losses, best

__all__ = ["advised", "outcome"]


def outcome(plan: Plan, results: tuple[Found, Mapping[str, float]]) -> Outcome:
    """Tables and figures.

    Figures: ``AdamW/TASK/rate`` and ``/loss``; of each optimizer ``LABEL/TASK/ratio``, its best rate over AdamW's, and
    test losses minus AdamW's best: ``/best``, ``/advised`` at the one ratio ``LABEL/advised`` for all tasks, and
    ``/unchanged`` at AdamW's own rate. ``LABEL/keeps_rate`` is 1 where the tables learned at AdamW's rate.
    """
    found, rates = results
    base = {name: _test(found[name][ADAMW], best(found[name][ADAMW])) for name in plan.places}
    figures: dict[str, float] = {}
    for name in plan.places:
        figures |= {f"{ADAMW}/{name}/rate": rates[name], f"{ADAMW}/{name}/loss": base[name]}
    wide, advice = [], []
    for entrant in plan.entrants:
        label, runs = entrant.label, {name: found[name][entrant.label] for name in plan.places}
        step = advised(runs)
        figures |= {f"{label}/advised": 2.0**step, f"{label}/keeps_rate": float(entrant.keeps_rate)}
        for name, known in runs.items():
            figures |= {
                f"{label}/{name}/ratio": 2.0 ** best(known),
                f"{label}/{name}/best": _test(known, best(known)) - base[name],
                f"{label}/{name}/advised": _test(known, step) - base[name],
                f"{label}/{name}/unchanged": _test(known, 0) - base[name],
            }
        cells = [f"{_times(best(known))}, {figures[f'{label}/{name}/best']:+.3f}" for name, known in runs.items()]
        wide.append([label, *cells])
        pairs = [[figures[f"{label}/{name}/{when}"] for name in runs] for when in ("advised", "unchanged")]
        advice.append([label, _times(step), *(" ".join(f"{value:+.3f}" for value in each) for each in pairs)])
    names = list(plan.places)
    rows = [["AdamW", *(f"{rates[name]:g}, {base[name]:.3f}" for name in names)], *wide]
    first = (
        "**The best rate over AdamW's, and the test loss there minus AdamW's**; of AdamW its best rate and test loss. "
        f"{len(plan.seeds)} seeds.\n\n{markdown(['optimizer', *names], rows)}"
    )
    head = ["optimizer", "lr over AdamW's", f"minus AdamW's test loss ({', '.join(names)})", "at AdamW's own rate"]
    return Outcome((first, f"**One ratio for all tasks.**\n\n{markdown(head, advice)}"), figures)


def advised(runs: Mapping[str, Mapping[int, list[Losses]]]) -> int:
    """The step in the middle of those that are best on each task, the lower one of two: a task of another kind than the
    rest says where care is due, and not where to start.
    """
    return median_low(best(known) for known in runs.values())


def _test(known: Mapping[int, list[Losses]], step: int) -> float:
    return mean(test for _, test in known[step])


def _times(step: int) -> str:
    return f"{2**step} x" if step >= 0 else f"1/{2**-step} x"
