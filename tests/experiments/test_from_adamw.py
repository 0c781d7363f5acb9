"""Rates from AdamW's: the walk on curves with a known lowest point, the advice by hand, and the advice at work."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

import nestlearn as nl
from experiments.optimizers.from_adamw.plan import ADAMW, Entrant, Place, read_plan
from experiments.optimizers.from_adamw.tables import advised, outcome
from experiments.optimizers.from_adamw.work import best, carry_out, train, walk

HOME = Path(__file__).parents[2] / "experiments" / "optimizers" / "from_adamw"
QUICK, FULL = (read_plan(HOME / f"{size}.yaml") for size in ("quick", "full"))
RECORD = json.loads((HOME / "results" / "full.json").read_text(encoding="utf-8"))["figures"]


def curve(lowest, calls=None):
    """Losses by step: the higher the farther from ``lowest``, diverged far above it."""

    def run(step):
        if calls is not None:
            calls.append(step)
        loss = math.inf if step > lowest + 3 else 1.0 + abs(step - lowest)
        return [(loss, loss), (loss, loss)]

    return run


@pytest.mark.parametrize(("lowest", "start"), [(0, 0), (3, 0), (-4, 1), (2, 8)])
def test_a_walk_ends_with_neighbours_on_both_sides_and_runs_nothing_twice(lowest: int, start: int) -> None:
    known, calls = {}, []
    walk(curve(lowest, calls), known, start, FULL)
    assert best(known) == lowest and {lowest - 1, lowest, lowest + 1} <= set(known)
    assert sorted(calls) == sorted(known)


def test_a_walk_goes_no_farther_than_the_plan_allows() -> None:
    known = {}
    walk(curve(40), known, 0, QUICK)
    assert sorted(known) == [-1, 0, 1, 2]


def test_of_rates_between_which_adamw_does_not_tell_the_smallest_counts() -> None:
    known = {0: [(0.106, 0.0)], 1: [(0.104, 0.0)], 2: [(0.1, 0.0)], 3: [(0.3, 0.0)]}
    assert (best(known), best(known, 0.005), best(known, 0.5)) == (2, 1, 0)


def test_the_advice_is_the_middle_of_what_is_best_on_each_task_and_the_lower_of_two() -> None:
    runs = {
        name: {lowest: curve(0)(0), lowest + 1: curve(0)(1)} for name, lowest in zip("abcd", (2, -2, 4, 3), strict=True)
    }
    assert advised(runs) == 2
    assert advised({name: runs[name] for name in "abc"}) == 2


def test_every_optimizer_that_is_exported_has_a_place_in_the_plan() -> None:
    assert {entrant.optimizer for entrant in FULL.entrants} == {*nl.optim.__all__} - {"Optimizer", "tables"}
    assert {entrant.label for entrant in FULL.entrants if entrant.keeps_rate} == {
        entrant.label for entrant in FULL.entrants if entrant.tables and entrant.optimizer != "DeltaGradientDescent"
    }


def test_a_folder_that_was_begun_is_continued_and_lines_of_another_plan_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def run(place, entrant, lr, elementwise_lr, seed):
        runs.append((entrant.label, lr))
        return (abs(math.log2(lr / 0.008)), 1.0 if entrant.label == ADAMW else 0.5)

    monkeypatch.setattr("experiments.optimizers.from_adamw.work.train", run)
    found, rates = carry_out(QUICK, tmp_path, 1)
    assert rates == {"digits": 0.008, "fine-tuning": 0.008}
    figures = outcome(QUICK, (found, rates)).figures
    assert figures["Momentum/digits/ratio"] == figures["Muon, tables/advised"] == 1.0
    assert figures["Momentum/digits/best"] == figures["Momentum/fine-tuning/unchanged"] == -0.5
    before, lines = len(runs), (tmp_path / "found.jsonl").read_text(encoding="utf-8").splitlines()
    carry_out(QUICK, tmp_path, 1)
    assert len(runs) == before
    (tmp_path / "found.jsonl").write_text("\n".join(lines[1:]) + "\n", encoding="utf-8")
    again, _ = carry_out(QUICK, tmp_path, 1)
    assert again == found and {label for label, _ in runs[before:]} == {ADAMW}
    carry_out(QUICK.model_copy(update={"seeds": (3,)}), tmp_path, 1)
    assert len(runs) > 1.9 * before


RAW = {"GradientDescent", "Momentum", "DeltaMomentum", "DeltaGradientDescent"}
"""Of docs/from-adamw.md: whose steps grow with a sum of gradients, in the place of their mean."""


@pytest.mark.parametrize("name", sorted({entrant.optimizer for entrant in FULL.entrants}))
def test_sums_of_gradients_are_means_to_all_but_those_that_the_page_names(name: str) -> None:
    def moved(scale: float) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
        optimizer, before = Entrant(optimizer=name).make(model, 0.01, None), parameters_to_vector(model.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            (scale * nn.functional.cross_entropy(model(torch.randn(8, 6).double()), torch.arange(8) % 4)).backward()
            optimizer.step()
        return (parameters_to_vector(model.parameters()) - before).detach()

    growth = float(moved(8.0).norm() / moved(1.0).norm())
    assert growth > 1.5 if name in RAW else growth == pytest.approx(1.0, abs=1e-3)
    page = (HOME.parents[2] / "docs" / "from-adamw.md").read_text(encoding="utf-8")
    sentence = page.partition("Sums and means")[2].partition("grow with the sum")[0]
    assert (f"`{name}`" in sentence) == (name in RAW)


MARGIN = 0.05
"""Nats by which losses of AdamW at rates that differ by a factor of two may differ here."""


@pytest.mark.slow
def test_the_advice_holds_on_a_task_that_is_not_among_those_it_was_measured_on() -> None:
    size = {"dim": 16, "depth": 1, "heads": 2, "context": 16, "batch": 8, "validation_windows": 32, "test_windows": 8}
    place, rate = Place(task="speeches", steps=60, size=size), 0.016  # AdamW's, within the margin of its best

    def loss(optimizer: str, lr: float, tables: bool = False) -> float:
        return train(place, Entrant(optimizer=optimizer, tables=tables), lr, rate if tables else None, 0)[0]

    adamw = loss(ADAMW, rate)
    assert loss("Muon", rate) > adamw + 10 * MARGIN  # the rate as it was, on the whole model
    assert loss("Muon", RECORD["Muon/advised"] * rate) < adamw + MARGIN
    assert loss("Muon", RECORD["Muon, tables/advised"] * rate, tables=True) < adamw + MARGIN
