"""The comparison of Nested: the search on functions with a known lowest point, lengths on known curves, statistics by
hand, and a run folder that was begun.
"""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import mean

import pytest
import torch

import nestlearn as nl
from experiments.optimizers.nested.judge import corrected, over_tasks, ratio
from experiments.optimizers.nested.ladder import Arrival, Ladder, arrival, wanted
from experiments.optimizers.nested.plan import Entrant, Plan, read_plan, spec_of
from experiments.optimizers.nested.search import Axes, Tuning, ends, trials
from experiments.optimizers.nested.texts import SHA256, strings
from experiments.optimizers.nested.timing import measure
from experiments.optimizers.nested.work import Retune, Runs, carry_out
from nestlearn.contenders import Variant
from nestlearn.rules import chain, parse, scale, unit_rows, within
from nestlearn.training import RunResult, RunSpec

HOME = Path(__file__).parents[2] / "experiments" / "optimizers" / "nested"
QUICK, FULL = (read_plan(HOME / f"{size}.yaml") for size in ("quick", "full"))
LENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.4)


def entrant(name: str, plan: Plan = FULL) -> Entrant:
    return next(one for one in plan.entrants() if one.name == name)


# --------------------------------------------------------------------------------------------------------- the plan


def test_the_plan_names_its_comparison_and_seeds_that_no_search_has_seen() -> None:
    searched = {FULL.search.seed, *FULL.judge.retune_seeds, *(s for rung in FULL.search.rungs for s in rung.seeds)}
    assert (FULL.primary, FULL.against) == ("Nested", "Muon")
    assert len(FULL.judge.seeds) == 8 and not searched & set(FULL.judge.seeds)
    assert sum(place.counted for place in FULL.unseen.values()) >= 3 and not set(FULL.unseen) & set(FULL.searched)
    assert FULL.search.rungs[-1].part == 1.0 in FULL.judge.lengths
    assert {
        place.size["file"]: place.size["sha256"] for place in FULL.places.values() if place.task == "text"
    } == SHA256


def test_a_rule_is_followed_by_itself_without_each_part() -> None:
    (listed,) = [one for one in QUICK.contenders if one.parts]
    parts = {one.name: one for one in QUICK.entrants() if one.part_of == listed.name}
    assert set(parts) == {f"{listed.name}-{part}" for part in listed.parts} and "Nested-whiten" in parts
    assert "whiten" not in parts["Nested-whiten"].variant.contender.partition("=")[2]
    assert parts["Nested-whiten"].takes["retention"] == "average.retention"
    # The retention of the covariances is not searched, in the whole as without the box.
    assert set(parts["Nested-average"].takes) == {"lr", "weight_decay"}


def test_the_parts_of_nested_that_the_plan_takes_away_are_those_that_it_has() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = nl.optim.Nested([weight])
    rule = optimizer.rules(optimizer.param_groups[0]).matrix
    momentum = rule.parts()["momentum"]
    box, covariances = replace(momentum, name=None), replace(rule.parts()["whiten"], name=None)
    readout = rule.parts()["orthogonal"]
    length = unit_rows(), scale("rows")
    expected = {
        "average": chain(within(covariances, readout)),
        "whiten": chain(box, readout),
        "orthogonal": chain(box, within(covariances, chain()), *length),
    }
    found = {one.name: parse(one.variant.contender.partition("=")[2]) for one in FULL.entrants() if one.part_of}
    assert found == {f"Nested-{part}": left for part, left in expected.items()}


def test_a_plan_may_be_carried_out_for_some_contenders() -> None:
    assert [one.name for one in FULL.some(["Nested", "Muon"]).entrants()] == ["Nested", "Muon"]
    assert FULL.some([]) == FULL
    with pytest.raises(ValueError, match="expected names among Muon, "):
        FULL.some(["Moun"])


def test_what_is_searched_is_what_a_contender_has_and_the_plan_does_not_fix() -> None:
    assert list(entrant("Muon").takes) == ["lr", "retention", "nesterov", "weight_decay"]
    assert list(entrant("AdamW").takes) == list(entrant("LayerMomentum").takes) == ["lr", "retention", "weight_decay"]
    assert list(Entrant("x", Variant("Muon"), (("nesterov", False),)).takes) == ["lr", "retention", "weight_decay"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"primary": "Nestled"}, "one contender called 'Nestled', got 0"),
        ({"contenders": [*FULL.model_dump()["contenders"], {"name": "AdamW", "optimizer": "M3"}]}, "a name each"),
        (
            {"contenders": [{"name": "Muon", "optimizer": "torch.optim.SGD"}]},
            "Muon: expected one of AdamW, .* got 'torch",
        ),
        ({"contenders": [{"name": "Muon"}]}, "either an optimizer or a rule of Muon"),
        ({"contenders": [{"name": "Muon", "optimizer": "Muon", "parts": ["momentum"]}]}, "Muon is no rule"),
    ],
)
def test_a_plan_that_cannot_be_is_a_clear_error(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan.model_validate(FULL.model_dump() | change).entrants()


def test_a_run_has_its_schedule_at_its_own_length() -> None:
    values = {"lr": 0.02, "retention": 0.7, "warmup": 0.1, "elementwise_lr": 0.005}
    spec = spec_of(FULL.searched["speeches"], entrant("Muon"), values, 100, 0.7, test=True)
    assert (spec.steps, spec.warmup, spec.elementwise_lr, spec.full) == (280, 28, 0.005, True)
    assert spec.settings == (("lr", 0.02), ("retention", 0.7)) and spec.seed == 100


# ------------------------------------------------------------------------------------------------------- the search


def bowl(point, lr=0.05, retention=0.85, elementwise=0.05):
    """Lowest at these values; each axis on the scale on which it is searched."""
    found = dict(point)
    terms = [
        math.log2(found["lr"] / lr),
        math.log2((1 - found.get("retention", retention)) / (1 - retention)),
        math.log2(found["elementwise_lr"] / elementwise),
        0.5 * (not found.get("nesterov", True)),
        5 * found["warmup"],
        found.get("weight_decay", 0.0),
    ]
    return sum(term**2 for term in terms)


@pytest.mark.parametrize("name", ["Muon", "AdamW", "Nested-average", "LayerMomentum"])
def test_every_contender_has_the_same_number_of_trials_and_comes_near_the_lowest_point(name: str) -> None:
    found = [point for batch in trials(Axes(entrant(name), FULL.search), FULL.search, bowl) for point in batch]
    assert len(found) == len(set(found)) == FULL.search.trials
    assert bowl(min(found, key=bowl)) < 0.03


def test_a_best_value_at_an_edge_is_followed_on_top_of_the_budget() -> None:
    def far(point):
        return bowl(point, lr=5.0)

    axes, how = Axes(entrant("Muon"), FULL.search), FULL.search.model_copy(update={"trials": 20})
    found = [point for batch in trials(axes, how, far) for point in batch]
    assert len(found) > 20
    rates = sorted({dict(point)["lr"] for point in found})
    assert all(high == pytest.approx(2 * low, rel=0.01) for low, high in pairwise(rates))
    few = how.model_copy(update={"grow": 1})
    tried = [point for batch in trials(axes, few, far) for point in batch]
    assert ends(min(tried, key=far), tried)["lr"] == "high"


def test_natural_ends_are_no_edges() -> None:
    tried = [(("retention", kept), ("nesterov", True), ("warmup", 0.0), ("weight_decay", 0.0)) for kept in (0.0, 0.5)]
    tried += [(("retention", 0.9), ("nesterov", False), ("warmup", 0.1), ("weight_decay", 0.1))]
    assert ends(tried[0], tried) == {}
    assert ends(tried[2], tried) == {"retention": "high", "warmup": "high", "weight_decay": "high"}


def result(spec: RunSpec, loss: float) -> RunResult:
    status = "finished" if math.isfinite(loss) else "diverged"
    return RunResult(spec.key, spec.task, spec.variant.name, dict(spec.settings), spec.seed, spec.steps, spec.full,
                     status, validation={"loss": loss} if math.isfinite(loss) else {})  # fmt: skip


def finish(course, loss):
    """Run a course to its end on a made-up loss; the specs in the order in which they were handed out."""
    done = []
    while batch := course.next():
        for spec in batch:
            course.record(result(spec, loss(spec)))
        done += batch
    return done


@pytest.mark.slow
def test_the_best_of_each_task_and_the_best_on_average_come_of_the_same_runs() -> None:
    lowest = {"speeches": 0.04, "text": 0.16}

    def loss(spec):
        values = dict(spec.settings) | {"elementwise_lr": spec.elementwise_lr, "warmup": spec.warmup / spec.steps}
        return bowl(values, lr=lowest[spec.task])

    course = Tuning(entrant("Muon"), FULL)
    done = finish(course, loss)
    assert course.chosen("speeches")["lr"] == pytest.approx(0.04, rel=0.1)
    assert course.chosen("jane-austen")["lr"] == pytest.approx(0.16, rel=0.1)
    assert course.edges("speeches") == {} == course.edges("jane-austen")
    # Between the two everything with the same product of distances is as good on average.
    assert 0.04 < course.chosen()["lr"] < 0.16
    whole = [spec for spec in done if spec.steps in (300, 400)]
    assert {spec.seed for spec in whole} == {0, 1, 2} and not any(spec.full for spec in done)
    assert course.loss("speeches", "speeches") <= course.loss("speeches")


@pytest.mark.slow
def test_rates_that_short_runs_liked_too_well_are_corrected_at_the_horizon() -> None:
    def loss(spec):
        values = dict(spec.settings) | {"elementwise_lr": spec.elementwise_lr, "warmup": spec.warmup / spec.steps}
        return bowl(values, lr=0.04 if spec.steps in (300, 400) else 0.08)

    course = Tuning(entrant("Muon"), FULL)
    finish(course, loss)
    assert course.chosen("speeches")["lr"] == pytest.approx(0.04, rel=0.2)
    assert course.chosen()["lr"] == pytest.approx(0.04, rel=0.2)


# ---------------------------------------------------------------------------------------------------------- lengths


def lengths_run(loss, target, lengths=LENGTHS):
    """The losses that are asked for on the way to a target, when that of a length is ``loss(length)``."""
    losses = {}
    while (length := wanted(lengths, losses, target)) is not None:
        assert length not in losses
        losses[length] = loss(length)
    return losses


@pytest.mark.parametrize("crossing", [0.52, 0.6, 0.65, 0.74, 0.85, 0.97, 1.0, 1.1, 1.33])
def test_a_crossing_is_found_where_the_loss_is_linear_in_the_logarithm_of_the_steps(crossing: float) -> None:
    def loss(length):
        return 2.0 - 0.3 * math.log(length)

    losses = lengths_run(loss, loss(crossing))
    found = arrival(LENGTHS, losses, loss(crossing))
    assert found.ratio == pytest.approx(crossing) and found.bound == ""
    assert len(losses) <= 4


def test_who_never_arrives_has_the_longest_length_as_a_bound_and_who_is_there_at_once_the_shortest() -> None:
    assert arrival(LENGTHS, lengths_run(lambda length: 3.0, 2.0), 2.0) == Arrival(1.4, ">")
    assert arrival(LENGTHS, lengths_run(lambda length: 1.0, 2.0), 2.0) == Arrival(0.5, "<")
    assert arrival(LENGTHS, lengths_run(lambda length: math.inf, 2.0), 2.0) == Arrival(1.4, ">")


def test_a_run_that_diverged_says_nothing_about_the_way_to_the_next_length() -> None:
    losses = lengths_run(lambda length: math.inf if length < 0.9 else 1.5, 2.0)
    assert arrival(LENGTHS, losses, 2.0) == Arrival(0.9)


def test_a_ladder_takes_what_is_known_and_serves_two_targets_with_common_runs() -> None:
    def spec(length):
        return RunSpec("speeches", Variant("Muon"), (("lr", 0.1),), 100, round(1000 * length))

    def loss(spec):
        return 2.0 - 0.3 * math.log(spec.steps / 1000)

    known = {spec(1.0).key: result(spec(1.0), 2.0), "other": result(spec(0.3), 9.0)}
    course = Ladder(spec, LENGTHS, [loss(spec(0.85)), loss(spec(0.65))], known)
    done = finish(course, loss)
    assert [round(one.ratio, 6) for one in course.arrivals()] == [0.85, 0.65]
    assert len({spec.key for spec in done}) == len(done) <= 5 and spec(1.0).key not in {spec.key for spec in done}


# ------------------------------------------------------------------------------------------------------- statistics


def test_a_ratio_is_a_geometric_mean_with_a_paired_t_test_on_logarithms() -> None:
    found = ratio([Arrival(0.5), Arrival(2.0), Arrival(0.25)])
    logs = [math.log(value) for value in (0.5, 2.0, 0.25)]
    middle = sum(logs) / 3
    error = math.sqrt(sum((log - middle) ** 2 for log in logs) / 2 / 3)
    assert found.mean == pytest.approx(0.25 ** (1 / 3)) and found.logs == pytest.approx(logs)
    assert found.interval == pytest.approx(tuple(math.exp(middle + side * 4.302653 * error) for side in (-1, 1)))
    t = abs(middle / error)  # with two degrees of freedom p has a closed form
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert not found.above_one


def test_the_ratio_of_two_contenders_is_taken_seed_by_seed() -> None:
    found = ratio([Arrival(0.8), Arrival(0.6)], [Arrival(1.0), Arrival(0.75)])
    assert found.mean == pytest.approx(0.8) and found.logs == pytest.approx([math.log(0.8)] * 2)
    assert found.p is None  # no scatter to judge by


def test_nothing_is_claimed_where_a_seed_never_arrived() -> None:
    found = ratio([Arrival(0.5), Arrival(0.55), Arrival(1.4, ">")])
    assert found.mean < 1 and found.never == 1 and found.p is None and found.above_one
    over = ratio([Arrival(0.5), Arrival(0.6)], [Arrival(0.5, "<"), Arrival(0.9)])
    assert over.never == 1 and over.early == 0  # the other was there even sooner
    under = ratio([Arrival(0.5), Arrival(0.6)], [Arrival(1.4, ">"), Arrival(0.9)])
    assert under.never == 0 and under.early == 1 and under.p is not None


@pytest.mark.parametrize("true", [1.0, 0.85])
def test_noise_does_not_move_the_mean_and_idle_differences_are_claimed_as_often_as_a_p_says(true: float) -> None:
    noise = Random(0)

    def seed() -> Arrival:
        curve = {length: 2.0 - 0.3 * math.log(length / true) + noise.gauss(0, 0.005) for length in LENGTHS}
        target = 2.0 + noise.gauss(0, 0.005)
        return arrival(LENGTHS, lengths_run(curve.__getitem__, target), target)

    found = [ratio([seed() for _ in range(8)]) for _ in range(300)]
    assert math.exp(mean(log for one in found for log in one.logs)) == pytest.approx(true, abs=0.002)
    claims = mean(one.p is not None and one.p < 0.05 for one in found)
    assert 0.02 < claims < 0.08 if true == 1 else claims == 1


def test_seconds_are_steps_times_what_a_step_takes() -> None:
    found = ratio([Arrival(0.5), Arrival(0.6), Arrival(0.7)])
    longer = found.times(1.5)
    assert longer.mean == pytest.approx(1.5 * found.mean)
    assert longer.interval == pytest.approx(tuple(1.5 * end for end in found.interval))


def test_over_tasks_every_seed_counts_once() -> None:
    one, two = ratio([Arrival(0.5), Arrival(0.8)]), ratio([Arrival(0.8), Arrival(0.9)])
    found = over_tasks([one, two])
    assert found.logs == pytest.approx([math.log(0.5 * 0.8) / 2, math.log(0.8 * 0.9) / 2])
    with pytest.raises(ValueError, match="at least one task"):
        over_tasks([])


def test_parts_are_corrected_by_holm_over_those_that_make_a_claim() -> None:
    parts = {
        "a": ratio([Arrival(0.50), Arrival(0.52), Arrival(0.51)]),
        "b": ratio([Arrival(0.80), Arrival(0.90), Arrival(0.95)]),
        "c": ratio([Arrival(0.80), Arrival(0.90), Arrival(1.4, ">")]),
    }
    found = corrected(parts)
    assert found["a"].holm == pytest.approx(2 * parts["a"].p)
    assert found["b"].holm == pytest.approx(max(parts["b"].p, 2 * parts["a"].p))
    assert found["c"].holm is None


# ------------------------------------------------------------------------------------------------------ carrying out


def test_times_are_those_of_whole_turns_beside_the_reference() -> None:
    task = QUICK.searched["digits"]
    values = {"lr": 0.02, "warmup": 0.0, "elementwise_lr": 0.01}
    specs = {name: spec_of(task, entrant(name, QUICK), values, 0) for name in ("Muon", "AdamW", "Nested")}
    found = measure(specs, "Muon", block=4, rounds=2)
    assert found["Muon"].ratio == 1.0 and all(one.step_ms > 0 for one in found.values())
    # Muon keeps a momentum of its matrices, Adam two boxes of everything, a whitening two covariances and their roots.
    assert found["Muon"].state_bytes < found["AdamW"].state_bytes < found["Nested"].state_bytes


def test_the_reference_is_retuned_past_the_edges_of_its_rates() -> None:
    values = {"lr": 0.02, "retention": 0.7, "warmup": 0.0, "elementwise_lr": 0.01}
    course = Retune(FULL.unseen["moby-dick"], entrant("Muon"), values, FULL)
    done = finish(course, lambda spec: bowl(dict(spec.settings) | {"elementwise_lr": 0.01, "warmup": 0}, lr=0.08))
    assert course.chosen()["lr"] == pytest.approx(0.08, rel=0.1) and course.chosen()["retention"] == 0.7
    assert {spec.seed for spec in done} == set(FULL.judge.retune_seeds) and not any(spec.full for spec in done)


SMALL = QUICK.model_dump() | {
    "contenders": [
        {"name": "Muon", "optimizer": "Muon"},
        {"name": "Nested", "rule": "chain(average(0.8), orthogonal())"},
    ],
    "searched": {"digits": {"task": "digits", "steps": 6, "size": {"hidden": 8}}},
    "unseen": {"narrow": {"task": "digits", "steps": 6, "size": {"hidden": 4}}},
}


@pytest.mark.slow
def test_a_run_folder_that_was_begun_is_continued_with_the_same_end(tmp_path: Path) -> None:
    plan = Plan.model_validate(SMALL)
    first = carry_out(plan, tmp_path, 1)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    keys = [json.loads(line)["key"] for line in lines if json.loads(line)["kind"] == "run"]
    assert len(keys) == len(set(keys)) and 0 < first.hours < 0.1
    (tmp_path / "metrics.jsonl").write_text("".join(lines[: len(lines) // 2]))
    again = carry_out(plan, tmp_path, 1)
    assert again.arrivals == first.arrivals and again.values == first.values and again.harder == first.harder
    assert again.times == first.times  # what was timed once stands
    with Runs(plan, tmp_path, 1) as runs:
        assert set(runs.known) == set(keys)


def test_strings_that_r_has_serialized_are_read() -> None:
    def number(value: int) -> bytes:
        return value.to_bytes(4, "big")

    def string(text: bytes) -> bytes:
        return number(0x00040009) + number(len(text)) + text

    missing = number(9) + b"\xff\xff\xff\xff"
    body = number(16) + number(4) + string(b"EMMA") + string(b"") + missing + string("é".encode())
    three = b"X\n" + number(3) + number(0x40201) + number(0x30500) + number(5) + b"UTF-8" + body
    two = b"X\n" + number(2) + number(0x40201) + number(0x20300) + body
    assert list(strings(three)) == list(strings(two)) == [b"EMMA", b"", b"", "é".encode()]
    for wrong in (b"A\n" + two[2:], two[:14] + number(13) + two[18:]):
        with pytest.raises(ValueError, match="expected a v"):
            list(strings(wrong))
