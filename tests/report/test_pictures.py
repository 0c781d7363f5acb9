"""What the pictures show: every contender, losers and diverged ones too, in the colours of the page."""

import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from made_up_runs import row as bare

from nestlearn.contenders import CONTENDERS
from nestlearn.report.choices import rates
from nestlearn.report.colours import PAPER, colour, stylesheet
from nestlearn.report.memories import score, surprise_panels
from nestlearn.report.pictures import curves, panels, ranking, training_panels
from nestlearn.report.series import Measured, measure
from nestlearn.training import Point, Row, RunFolder, RunResult
from nestlearn.training.results import Sample


@pytest.fixture(scope="module")
def measured(made_up: RunFolder, rows: list[Row]) -> dict[str, Measured]:
    return measure(rows, made_up.runs()[0])


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour, by the definition of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_and_lines_stand_out_from_the_paper(dark: bool) -> None:
    values = dict(re.findall(r"--(\w+): (#\w{6});", stylesheet(dark)))
    for name in ("ink", "soft", "good", "bad", "link", "warn"):
        assert contrast(values[name], values["paper"]) >= 4.5
        assert contrast(values[name], values["wash"]) >= 4.5
    lines = {name: value for name, value in values.items() if name not in PAPER}
    assert len(lines) > len(CONTENDERS)
    assert {name for name, value in lines.items() if contrast(value, values["paper"]) < 3} == set()


def test_every_contender_has_a_colour_of_its_own_that_the_style_sheet_knows() -> None:
    assert len({colour(name) for name in CONTENDERS}) == len(CONTENDERS)
    for name in (*CONTENDERS, "mine:optimizer"):
        assert f"{colour(name)[4:-1]}: #" in stylesheet(dark=False)


def test_all_pictures_are_well_formed_and_named(rows: list[Row], measured: dict[str, Measured]) -> None:
    drawn = [
        ranking(rows, "AdamW", "nats"), *curves(rows, measured, "AdamW", "nats"), *panels(rows, measured, "AdamW"),
        *training_panels(rows, measured), *rates(rows, 6), *surprise_panels(rows, measured),
    ]  # fmt: skip
    for picture in drawn:
        root = ElementTree.fromstring(picture)
        assert root.get("role") == "img" and root.get("aria-label")
        assert not re.search(r"\bnan\b|\binf\b", picture)
        assert not re.search(r"#[0-9a-fA-F]{6}", picture), "a colour that does not follow the paper"


def test_losers_and_diverged_contenders_are_in_every_picture(rows: list[Row], measured: dict[str, Measured]) -> None:
    names = [row.name for row in rows if not row.control]
    assert "M3" in names
    ranked = ranking(rows, "AdamW", "nats")
    assert all(f">{name}<" in ranked for name in names) and "diverged" in ranked
    beside = panels(rows, measured, "AdamW")
    assert len(beside) == len(names) - 1 and any("M3: diverged" in one for one in beside)
    assert len(training_panels(rows, measured)) == len(names)
    assert len(rates(rows, 6)) == len(names)


@pytest.mark.parametrize(("least", "cut"), [(0.0, True), (None, False)])
def test_nothing_is_drawn_below_the_lowest_loss_that_there_can_be(least: float | None, cut: bool) -> None:
    losses = Sample(0.05, 0.05, (0.0, 0.1))
    picture = ranking([replace(bare("Muon"), test={"loss": losses}, interval=(-0.4, 0.5))], "AdamW", "nats", least)
    (bar,) = re.findall(r'<rect x="([^"]+)"', picture)
    (first,) = re.findall(r'<path class="l" d="M([\d.]+) [\d.]+v12"', picture)[:1]
    assert (bar == first) == cut  # the seed that reached nought stands where the picture ends


def test_curves_name_every_line(rows: list[Row], measured: dict[str, Measured]) -> None:
    for picture in curves(rows, measured, "AdamW", "nats"):
        drawn = {row.name for row in rows if not row.control and measured[row.name].by_steps}
        assert set(re.findall(r"<title>([^:]+):", picture)) == drawn


def test_every_trial_is_a_dot(rows: list[Row]) -> None:
    row = next(row for row in rows if row.name == "Momentum")
    (picture,) = rates([replace(row, control_name=None)], budget=len(row.trials) - 2)
    finished = [trial for trial in row.trials if trial.loss is not None]
    assert picture.count("<circle") == len(finished) + 1  # the ring around the chosen one
    assert f">{len(row.trials) - 2} + 2<" in picture  # two beyond the regular grid


@pytest.mark.parametrize("name", ["AdamW", "M3"], ids=["one alone", "diverged alone"])
def test_pictures_of_next_to_nothing(rows: list[Row], measured: dict[str, Measured], name: str) -> None:
    alone = [row for row in rows if row.name == name]
    empty = measure(alone, {})
    for lines in (measured, empty):
        for picture in (ranking(alone, "AdamW", "nats"), *curves(alone, lines, "AdamW", "nats")):
            ElementTree.fromstring(picture)
    assert training_panels(alone, empty) == [] and surprise_panels(alone, empty) == []


SYSTEM = {
    "memories": [
        {"name": "weights", "period": 1, "level": 2, "home": "weights"},
        {"name": "slow", "period": 4, "level": 1, "home": "optimizer"},
        {"name": "fast", "period": 1, "level": 3, "home": "optimizer"},
    ]
}


def scored(steps: int, surprises: list, train: list) -> str:
    row = bare("M3", "a")
    run = RunResult("a", "digits", "M3", {}, 0, steps, True, "finished", train=train, surprises=surprises)
    return score(row, Measured(row, {"a": run}), SYSTEM)


def boxes(picture: str) -> list[tuple[float, float, float, str]]:
    """x, y, width and look of every box."""
    found = []
    for shape, look in re.findall(r'<path d="([^"]+)"( [^>]*)/>', picture):
        for x, y, width in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v", shape):
            found.append((float(x), float(y), float(width), look))
    return found


LOOKS = [[8, "slow", 1.0], [8, "fast", 1.0]]
TRAIN = [Point(8, 0.1, 3.0)]


def test_the_score_has_a_lane_a_memory_and_a_box_a_write_as_wide_as_its_period() -> None:
    found = boxes(scored(8, LOOKS, TRAIN))
    lanes = sorted({y for _, y, _, _ in found})
    by_lane = [[box for box in found if box[1] == y] for y in lanes]
    assert [len(lane) for lane in by_lane] == [2, 8, 8]  # the slowest at the top
    slow, fast = by_lane[0][0][2], by_lane[2][0][2]
    assert slow + 1 == pytest.approx(4 * (fast + 1), abs=0.3)  # less the gap between boxes
    assert sum('class="u"' in look for *_, look in found) == 1 + 7  # nobody looked before step 8


def test_a_memory_at_which_nobody_looked_is_named_and_has_no_lane() -> None:
    picture = scored(8, [[8, "fast", 1.0]], TRAIN)
    assert len({y for _, y, _, _ in boxes(picture)}) == 2
    assert ">no surprise measured: slow /4<" in picture
    assert "no surprise" not in scored(8, LOOKS, TRAIN) and boxes(scored(8, [], [])) == []


def test_names_that_nothing_may_be_cut_of_have_room() -> None:
    names = [f"parallel.fast_average.{which}_of_them.momentum.inner.second_moment" for which in ("first", "other")]
    row, wide = bare("M3", "a"), 6 * len(names[0])
    run = RunResult("a", "digits", "M3", {}, 0, 8, True, "finished", surprises=[[8, name, 1.0] for name in names])
    system = {"memories": [{"name": name, "period": 1, "level": 2, "home": "memory"} for name in names]}
    lanes = score(row, Measured(row, {"a": run}), system)
    (lines,) = surprise_panels([row], {"M3": Measured(row, {"a": run})})
    ends = [float(re.search(r'viewBox="0 0 ([\d.]+)', picture)[1]) for picture in (lanes, lines)]
    assert all(f">{name}<" in picture for name in names for picture in (lanes, lines))
    first, *_, last = sorted(x for x, *_ in boxes(lanes))
    assert wide < first < last < ends[0] and 70 + wide < ends[1]
    unseen = score(row, Measured(row, {"a": replace(run, surprises=[])}), system)
    assert all(6 * len(line) <= 362 for line in re.findall(r">([^<]+)</text>", unseen))


def test_boxes_are_as_dark_as_their_surprise() -> None:
    surprises = [[step, "fast", 2.0**-step] for step in range(1, 9)]
    train = [Point(4, 0.1, 3.0), Point(8, 0.2, 1.0)]
    found = boxes(scored(8, surprises, train))
    lanes = sorted({y for _, y, _, _ in found})
    shades = [
        [float(re.search(r'fill-opacity="([\d.]+)"', look)[1]) for _, y, _, look in sorted(found) if y == lane]
        for lane in lanes
    ]
    weights, fast = shades
    assert fast == sorted(fast, reverse=True) and fast[0] == 1.0 and fast[-1] == 0.12
    assert weights[:4] == [1.0] * 4 and weights[4:] == [0.12] * 4  # a row of the training loss is of four steps


def test_a_surprise_is_that_of_the_latest_write() -> None:
    found = boxes(scored(8, [[6, "slow", 1.0], [8, "slow", 2.0]], TRAIN))
    top = min(y for _, y, _, _ in found)
    looks = [look for _, y, _, look in sorted(found) if y == top]
    assert 'class="u"' not in looks[0] and 'class="u"' not in looks[1]  # written at 4 (seen at 6) and at 8


def test_a_long_run_is_shown_step_by_step_and_as_a_whole() -> None:
    looks = [[step, "fast", 1.0 / step] for step in range(100, 2001, 100)]
    found = boxes(scored(2000, looks, []))
    bottom = max(y for _, y, _, _ in found)
    assert sum(1 for _, y, _, _ in found if y == bottom) == 24 + 20  # as many boxes of the whole as there were looks


def test_nothing_is_written_after_a_divergence() -> None:
    row = bare("M3", "a")
    train = [Point(1, 0.1, 3.0), Point(5, 0.2, 9.0)]
    run = RunResult("a", "digits", "M3", {}, 0, 8, True, "diverged", train=train, surprises=LOOKS)
    found = boxes(score(row, Measured(row, {"a": run}), SYSTEM))
    lanes = sorted({y for _, y, _, _ in found})
    assert [sum(1 for _, y, _, _ in found if y == lane) for lane in lanes] == [1, 5, 5]


def test_a_run_with_every_step_logged_shows_its_first_steps_exactly() -> None:
    train = [Point(step, 0.1 * step, 8.0 if step == 3 else 1.0) for step in range(1, 2001)]
    found = boxes(scored(2000, [], train))
    assert len({y for _, y, _, _ in found}) == 1
    first = [look for *_, look in sorted(found)][:24]
    assert [i for i, look in enumerate(first) if 'fill-opacity="1.00"' in look] == [2]


def test_losses_over_many_decades_are_drawn_on_a_log_scale(rows: list[Row], measured: dict[str, Measured]) -> None:
    def shrunk(row: Row, place: int) -> Row:
        scale = 10.0 ** (-3 * place)
        return replace(row, test={"loss": Sample(scale, None, (scale,))}, interval=None)

    some = [row for row in rows if not row.control and row.test]
    picture = ranking([shrunk(row, place) for place, row in enumerate(some)], "AdamW", "nats")
    centres = [float(x) for x in re.findall(r'<circle cx="([\d.]+)" cy="[\d.]+" r="5"', picture)]
    steps = [a - b for a, b in pairwise(centres)]
    assert len(centres) == len(some) and steps == pytest.approx([steps[0]] * len(steps), abs=0.3)
