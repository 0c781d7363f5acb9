"""What the numbers say in words: the arithmetic of the sentence, losing included, and what few seeds may not say."""

from dataclasses import replace

import pytest
from made_up_runs import row as bare

from nestlearn.report.findings import cards, headline
from nestlearn.training import Row
from nestlearn.training.results import Reached, Sample
from nestlearn.training.statistics import correct, paired

ADAMW = (2.0, 2.2, 2.1, 2.1, 2.1)


def reached(steps: float | None, seeds: int, of: int = 5) -> Reached:
    return Reached(2.1, steps, None if steps is None else 1.0, seeds, of)


def rows(*losses: float, seeds: int = 5, mine: Reached | None = None, ms: float = 9.0) -> list[Row]:
    """AdamW, and a Muon with these test losses beside it and above its control; the best first."""
    names = {"AdamW": ADAMW[:seeds], "Muon": losses, "Muon (control)": tuple(loss - 0.05 for loss in losses)}
    made = {
        name: replace(
            bare(name, *map(str, range(seeds))),
            test={"loss": Sample(sum(values) / seeds, 0.1, tuple(values))},
            step_ms=5.0,
            to_target=reached(164.6, 2),
            control=name.endswith("(control)"),
        )
        for name, values in names.items()
    }
    against = {name: correct([paired(losses, names[name])])[0] for name in ("AdamW", "Muon (control)")}
    made["Muon"] = replace(
        made["Muon"],
        control_name="Muon (control)",
        against_baseline=against["AdamW"],
        against_control=against["Muon (control)"],
        to_target=mine or reached(76.4, 5),
        step_ms=ms,
    )
    return sorted(made.values(), key=lambda row: row.test["loss"].mean)


def test_the_sentence_says_what_is_gained_in_how_many_steps_at_which_cost_and_how_surely() -> None:
    found = rows(1.80, 1.90, 1.85, 1.85, 1.84)  # a mean of 1.848, 12% below 2.1
    p = found[1].against_baseline.p
    assert p < 0.001
    assert headline(found, "AdamW") == (
        "Muon (1.848) ends 12% below AdamW (2.1) and gets to where that ends in 76 steps (AdamW 165, 2 of 5 seeds), "
        "at 1.8 times the time a step; all 5 seeds agree, p < 0.001."
    )


def test_losing_has_words_of_its_own() -> None:
    found = rows(2.31, 2.10, 2.31, 2.31, 2.31, mine=reached(None, 0), ms=5.0)  # a mean of 2.268
    p = found[-1].against_baseline.p
    assert found[-1].name == "Muon" and p > 0.001
    assert headline(found, "AdamW") == (
        "Nobody ends below AdamW (2.1): the nearest, Muon (2.268), ends 8% above it and never gets to where that ends, "
        f"at the same time a step; the 5 seeds do not agree, p {p:.3f}."
    )
    assert ", ends level with it and gets" in headline(rows(*ADAMW), "AdamW")
    some = headline(rows(*ADAMW, mine=reached(90, 1)), "AdamW")
    assert "in 90 steps (1 of 5 seeds; AdamW 165, 2 of 5 seeds), at" in some


@pytest.mark.parametrize(
    ("seeds", "said"),
    [(1, "; one seed, and a p needs 4 or more."), (2, "; both seeds agree, and a p needs 4 or more."),
     (3, "; all 3 seeds agree, and a p needs 4 or more.")],
)  # fmt: skip
def test_few_seeds_claim_nothing_and_say_what_is_missing(seeds: int, said: str) -> None:
    found = rows(*(loss - 0.2 for loss in ADAMW[:seeds]), seeds=seeds)
    assert headline(found, "AdamW").endswith(said)
    told = cards(found, "AdamW")
    assert "significant" not in str(told) and f"{seeds} seed" in told[1].note and "a p needs 4 or more" in told[1].note
    titles = [card.title for card in told[1:]]
    assert titles == [
        "Better than AdamW, on every seed",
        "Memory helped against its control, on every seed",
        "Memory lost to its control, on every seed",
    ]
    its = sum(ADAMW[:seeds]) / seeds
    assert told[1].names == [f"Muon (−{100 * 0.2 / its:.2g}%)"] and told[2].names == []
    assert told[3].names == [f"Muon (+{100 * 0.05 / (its - 0.25):.2g}%)"]


def test_with_enough_seeds_the_cards_say_who_is_significant_and_by_how_much() -> None:
    found = rows(1.80, 1.90, 1.85, 1.85, 1.84)
    best, better, helped, hurt = cards(found, "AdamW")
    assert (best.names, best.note) == (["Muon"], "1.848; AdamW: 2.1")
    assert (better.title, better.names) == ("Better than AdamW, significantly", ["Muon (−12%)"])
    assert helped.names == [] and hurt.note == "on every seed, not significantly: Muon (+2.8%); undecided: none"


@pytest.mark.parametrize(
    ("its", "mine", "words"),
    [(0.01, 0.2, "0.19 above"), (0.01, 0.0299, "199% above"), (0.0, 0.25, "0.25 above"), (-1.0, -1.5, "0.5 below"),
     (2.0, 1.99, "0.5% below")],
)  # fmt: skip
def test_a_share_is_said_where_a_loss_has_one(its: float, mine: float, words: str) -> None:
    samples = {"AdamW": Sample(its, None, (its,)), "Muon": Sample(mine, None, (mine,))}
    made = [replace(bare(name, "0"), test={"loss": loss}) for name, loss in samples.items()]
    made[1] = replace(made[1], against_baseline=paired([mine], [its]))
    assert words in headline(made, "AdamW")


def test_nothing_is_said_where_nothing_can_be_compared() -> None:
    found = {row.name: row for row in rows(*ADAMW)}
    lost = replace(found["AdamW"], status="diverged", test={})
    assert headline([found["AdamW"]], "AdamW") == "" and headline([lost, found["Muon"]], "AdamW") == ""
    assert cards([lost], "AdamW") == []
