"""What the numbers of a task say in words: one sentence about the best of the others against the baseline, and cards.

Below ``FEWEST`` seeds no word claims significance: results are said as they are, and whether all seeds agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nestlearn.report.tables import claim, helps
from nestlearn.training import Row
from nestlearn.training.results import FEWEST, Difference, Reached

__all__ = ["Card", "cards", "headline"]


@dataclass(frozen=True)
class Card:
    """A question, who answers it with yes, and what is to be known beside that."""

    title: str
    names: Sequence[str]
    note: str


def headline(rows: Sequence[Row], baseline: str) -> str:
    """One sentence: what the best contender besides the baseline gains or loses, in how many steps, at which cost a
    step, and how surely; empty if there is nothing to compare.

    ``rows`` are those of a task, best test loss first, as ``Results`` holds them: "Muon (2.107) ends 8.3% below AdamW
    (2.298) and gets to where that ends in 90 steps (AdamW 157, 2 of 5 seeds), at 1.6 times the time a step; all 5 seeds
    agree, p < 0.001."
    """
    contenders = [row for row in rows if not row.control and row.test]
    reference = next((row for row in contenders if row.name == baseline), None)
    best = next((row for row in contenders if row is not reference), None)
    if not reference or not best or not (found := best.against_baseline):
        return ""
    mine, its = best.test["loss"].mean, reference.test["loss"].mean
    size = _amount(found.mean, its)
    if found.mean < 0:
        said = f"{best.name} ({mine:.4g}) ends {size} below {baseline} ({its:.4g})"
    else:
        where = f"ends {size} above it" if found.mean > 0 else "ends level with it"
        said = f"Nobody ends below {baseline} ({its:.4g}): the nearest, {best.name} ({mine:.4g}), {where}"
    return f"{said}{_way(best, reference)}{_time(best, reference)}; {_agreement(best, found)}."


def _amount(difference: float, of: float) -> str:
    """The size of a difference: a share of a loss where that is one, the number itself where losses reach zero."""
    share = 100 * abs(difference) / of if of > 0 else float("inf")
    return f"{share:.2g}%" if share < 99.5 else f"{share:.0f}%" if share < 1000 else f"{abs(difference):.3g}"


def _way(row: Row, reference: Row) -> str:
    """How many steps it takes to the validation loss with which the baseline ends, beside the baseline's own."""
    mine, its = row.to_target, reference.to_target
    if not mine or not its:
        return ""
    if mine.steps is None:
        return " and never gets to where that ends"
    own = f"{reference.name} {its.steps:,.0f}{_seeds(its, ', ')}" if its.steps is not None else ""
    aside = "; ".join(filter(None, (_seeds(mine), own)))
    return f" and gets to where that ends in {mine.steps:,.0f} steps{f' ({aside})' if aside else ''}"


def _seeds(found: Reached, before: str = "") -> str:
    return f"{before}{found.reached} of {found.of} seeds" if found.reached < found.of else ""


def _time(row: Row, reference: Row) -> str:
    if not row.step_ms or not reference.step_ms:
        return ""
    ratio = f"{row.step_ms / reference.step_ms:.1f}"
    return ", at the same time a step" if ratio == "1.0" else f", at {ratio} times the time a step"


def _agreement(row: Row, found: Difference) -> str:
    """How much the seeds say about the sign of a difference."""
    seeds = len(found.values)
    if seeds == 1:
        return f"one seed, and a p needs {FEWEST} or more"
    every = "both" if seeds == 2 else f"all {seeds}"
    agree = f"{every} seeds agree" if helps(row, found) is not None else f"the {seeds} seeds do not agree"
    if seeds < FEWEST:
        return f"{agree}, and a p needs {FEWEST} or more"
    return ", ".join(filter(None, (agree, claim(found)[1])))


def cards(rows: Sequence[Row], baseline: str) -> list[Card]:
    """The best, who beat the baseline, and whose memory beat its control or lost to it, and how surely; none if every
    contender diverged.
    """
    contenders = [row for row in rows if not row.control and row.test]
    if not contenders:
        return []
    best, reference = contenders[0], next((row for row in contenders if row.name == baseline), None)
    beside = f"; {baseline}: {reference.test['loss'].mean:.4g}" if reference else ""

    def against_control(row: Row) -> Difference | None:
        return row.against_control

    better = _decided(contenders, lambda row: row.against_baseline, True)
    helped, hurt = (_decided(contenders, against_control, good) for good in (True, False))
    told = {name for found in (helped, hurt) for names in found for name, _ in names}
    left = [row.name for row in contenders if row.against_control and row.name not in told]
    return [
        Card("Lowest test loss", [best.name], f"{best.test['loss'].mean:.4g}{beside}"),
        _card(f"Better than {baseline}", better, len(best.runs)),
        _card("Memory helped against its control", helped, len(best.runs)),
        _card("Memory lost to its control", hurt, len(best.runs), f"; undecided: {_list(left)}"),
    ]


Decided = tuple[list[tuple[str, str]], list[tuple[str, str]]]
"""Names with the size of their effect: those that are significant, then those of whom every seed says the same."""


def _decided(rows: Sequence[Row], of: Callable[[Row], Difference | None], good: bool) -> Decided:
    sure, likely = [], []
    for row in rows:
        if (found := of(row)) is None:
            continue
        other = row.test["loss"].mean - found.mean
        told = row.name, f"{row.name} ({'−' if found.mean < 0 else '+'}{_amount(found.mean, other)})"
        if claim(found)[0] and (found.mean < 0) == good:
            sure.append(told)
        elif helps(row, found) is good:
            likely.append(told)
    return sure, likely


def _card(question: str, found: Decided, seeds: int, more: str = "") -> Card:
    sure, likely = ([words for _, words in names] for names in found)
    if seeds < FEWEST:
        few = f"{seeds} seed{'s' if seeds > 1 else ''}: a p needs {FEWEST} or more"
        return Card(f"{question}, on every seed", likely, f"{few}{more}")
    return Card(f"{question}, significantly", sure, f"on every seed, not significantly: {_list(likely)}{more}")


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
