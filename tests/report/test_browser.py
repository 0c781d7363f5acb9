"""A report in a browser: light and dark, wide and narrow, with and without scripts, and not one request."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import axe
import pytest
from chromium import Opened, marks, started_browser
from playwright.sync_api import Browser, Locator, Page
from typer.testing import CliRunner

from nestlearn.cli.main import build_entry
from nestlearn.report import write_report
from nestlearn.training import Row, RunFolder

VIEWS = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 360)]

pytestmark = marks


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as browser:
        yield browser


def run(path: Path, verb: str, options: str) -> RunFolder:
    outcome = CliRunner().invoke(build_entry(), [verb, "--quiet", "--out", str(path), *options.split()])
    assert outcome.exit_code == 0, outcome.output
    return RunFolder.open(path)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """What `nestlearn compare` leaves behind."""
    few = "--steps 12 --seeds 0..1 --workers 1 --set lr_points=1 --set grow=0 --set refine=0"
    return run(
        tmp_path_factory.mktemp("compared") / "run", "compare", f"--tasks digits --optimizers DeepMomentum {few}"
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """What `nestlearn train` leaves behind."""
    options = "--task digits --optimizer DeepMomentum --steps 12"
    return run(tmp_path_factory.mktemp("trained") / "run", "train", options)


@pytest.fixture(params=["made_up", "compared", "trained"])
def report(request: pytest.FixtureRequest) -> Path:
    """The report of a made-up comparison, larger than the real ones, and of real folders of both kinds."""
    folder: RunFolder = request.getfixturevalue(request.param)
    return write_report(folder.path)[0]


def test_it_is_legible_whole_and_silent(browser: Browser, report: Path) -> None:
    """In every view, one after the other in one page, as when a reader turns the phone or the lights."""
    measure = (Path(__file__).parent / "legibility.js").read_text(encoding="utf-8")
    with Opened(browser, report) as opened:
        opened.unfold()
        for scheme, width in VIEWS:
            opened.page.emulate_media(color_scheme=scheme)
            opened.page.set_viewport_size({"width": width, "height": 900})
            found = opened.page.evaluate(measure)
            assert (found["paper"] < 0.1) == (scheme == "dark")
            assert len(found["words"]) > 100 and len(found["lines"]) > 5
            assert [word for word in found["words"] if word[1] < 4.5] == []
            assert [line for line in found["lines"] if line[1] < 3] == []
            assert found["smallest"] > 8.5
            overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert opened.page.evaluate(overflow) == 0
        assert opened.requests == [report.as_uri()] and opened.complaints == []


@axe.marks
@pytest.mark.parametrize("kind", ["compared", "trained"])
def test_axe_finds_nothing(browser: Browser, request: pytest.FixtureRequest, kind: str) -> None:
    """Dark on a telephone, with a line brought out and read; then light and wide, with everything unfolded."""
    folder: RunFolder = request.getfixturevalue(kind)
    view = {"width": 400, "color_scheme": "dark", "reduced_motion": "reduce"}
    with Opened(browser, write_report(folder.path)[0], **view) as opened:
        for button in opened.page.get_by_role("button", name="DeepMomentum", exact=True).all():
            button.click()
        opened.page.get_by_role("slider").first.focus()
        assert axe.violations(opened.page) == []
        opened.page.emulate_media(color_scheme="light")
        opened.page.set_viewport_size({"width": 1280, "height": 900})
        opened.unfold()
        assert axe.violations(opened.page) == []


@pytest.fixture(scope="module")
def page(browser: Browser, made_up: RunFolder) -> Iterator[Page]:
    """The report of the made-up comparison; a test leaves it as it was."""
    with Opened(browser, write_report(made_up.path)[0], reduced_motion="reduce") as opened:
        yield opened.page
        assert opened.complaints == []


def column(table: Locator, heading: str) -> list[str]:
    """The cells below a heading, without the notes in them."""
    place = table.locator("thead th").all_inner_texts().index(heading)
    cells = "(rows, place) => rows.map((row) => row.cells[place].firstChild.textContent.trim())"
    found: list[str] = table.locator("tbody tr").evaluate_all(cells, place)
    return found


def test_a_heading_sorts_by_its_column_and_says_so(page: Page) -> None:
    table = page.locator("#task1-table table").first
    given = column(table, "test")
    head, button = table.get_by_role("columnheader", name="test", exact=True), table.get_by_role("button", name="test")
    assert given[-1] == "diverged" and len(given) > 4 and head.get_attribute("aria-sort") is None
    button.focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending" and column(table, "test") == given
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(table, "test") == [*reversed(given[:-1]), "diverged"]  # what has no number stays below
    table.get_by_role("button", name="vs AdamW").click()
    assert head.get_attribute("aria-sort") is None
    numbers = [float(text.rstrip("*")) for text in column(table, "vs AdamW") if text[1:2].isdigit()]
    assert len(numbers) > 2 and numbers == sorted(numbers)
    table.get_by_role("button", name="optimizer").click()
    names = table.get_by_role("rowheader").all_inner_texts()
    assert len(names) == len(given) and names == sorted(names, key=str.lower)
    table.get_by_role("button", name="optimizer").click()
    table.get_by_role("button", name="optimizer").click()
    assert column(table, "test") == given


def test_the_first_column_stays_and_a_shadow_says_that_there_is_more(page: Page) -> None:
    frame = page.locator("#task1-table .frame").first
    scroll, name = frame.locator(".scroll"), frame.locator("tbody th").first
    page.set_viewport_size({"width": 400, "height": 900})
    page.wait_for_function("(one) => one.dataset.more === 'right'", arg=frame.element_handle())
    assert scroll.get_attribute("tabindex") == "0"
    before = name.bounding_box()
    scroll.evaluate("(one) => { one.scrollLeft = 60; }")
    page.wait_for_function("(one) => one.dataset.more === 'left right'", arg=frame.element_handle())
    assert before is not None and name.bounding_box() == before
    scroll.evaluate("(one) => { one.scrollLeft = 0; }")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_function("(one) => one.dataset.more === ''", arg=frame.element_handle())
    assert scroll.get_attribute("tabindex") == "-1"


OPACITIES = """(name) => [...document.querySelectorAll('[data-of]')].map((one) =>
  [one.dataset.of === name, Number(getComputedStyle(one).opacity), one.closest('figure').id])"""


def test_the_legend_dims_everything_else_in_every_picture(page: Page) -> None:
    button = page.get_by_role("button", name="Momentum", exact=True)
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "true"
    seen = page.evaluate(OPACITIES, "Momentum")
    pictures = {"ranking", "curves", "panels", "training", "choice", "score", "surprise"}
    assert {figure.removeprefix("task1-") for _, _, figure in seen} == pictures
    assert {opacity for own, opacity, _ in seen if own} == {1} and {opacity for own, opacity, _ in seen if not own} == {
        0.13
    }
    page.locator("#task1-curves .ends [data-of=Muon]").first.click()  # a name in a picture is one of the legend too
    assert page.get_by_role("button", name="Muon", exact=True).get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="all", exact=True).click()
    assert {opacity for _, opacity, _ in page.evaluate(OPACITIES, "Momentum")} == {1}
    assert button.get_attribute("aria-pressed") == "false"


# Of each dot of the crosshair, whether it lies on the line that it stands for.
ON_THE_LINES = """() => [...document.querySelectorAll("#task1-curves .cross circle")].map((dot) => {
  const line = dot.closest("svg").querySelector(`.many [data-of="${dot.dataset.of}"] .l`);
  return line.isPointInStroke(new DOMPoint(dot.cx.baseVal.value, dot.cy.baseVal.value));
})"""


def test_the_crosshair_says_the_values_of_all_lines(page: Page, made_up: RunFolder, rows: list[Row]) -> None:
    runs = made_up.runs()[0]
    shown = [row for row in rows if not row.control and row.test]
    curves = {row.name: [runs[key].curve for key in row.runs] for row in shown}
    slider = page.locator("#task1-curves").get_by_role("slider").first
    slider.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    step = next(iter(curves.values()))[0][2].step
    means = sorted((sum(curve[2].loss for curve in seeds) / len(seeds), name) for name, seeds in curves.items())
    heading, *values = (slider.evaluate("(one) => one.ariaValueText")).split(", ")
    assert heading == f"step {step}" and [value.split()[0] for value in values] == [name for _, name in means]
    assert [float(value.split()[1]) for value in values] == pytest.approx([mean for mean, _ in means], rel=1e-3)
    assert page.locator("#task1-curves .box text").all_text_contents() == [
        heading, *(part for value in values for part in value.split())
    ]  # fmt: skip
    by_second = page.locator("#task1-curves").get_by_role("slider").last
    by_second.focus()
    for _ in range(4):
        page.keyboard.press("PageDown")
    found = page.evaluate(ON_THE_LINES)
    assert len(found) > 1 and all(found) and "≈" in by_second.evaluate("(one) => one.ariaValueText")
    slider.focus()
    picture = page.locator("#task1-training svg[data-read]").first
    picture.scroll_into_view_if_needed()
    place = picture.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.locator("#task1-training .cross").first.wait_for()
    small = page.locator("#task1-training svg[data-read]")
    assert page.locator("#task1-training .cross").count() == small.count() > 3  # in all of them at once
    page.mouse.move(0, 0)
    slider.blur()
    page.wait_for_function("!document.querySelector('.cross')")


def test_every_picture_has_a_name_of_its_own(browser: Browser, report: Path) -> None:
    with Opened(browser, report) as opened:
        opened.unfold()
        outermost = "[...document.querySelectorAll('svg')].filter((one) => !one.parentElement.closest('svg'))"
        names = opened.page.evaluate(f"{outermost}.map((one) => one.getAttribute('aria-label'))")
        assert len(names) > 5 and all(names) and len(set(names)) == len(names)
        assert opened.page.get_by_role("img").count() == len(names)


# In sight below the bar; or, near the end of the page, as far up as it can come.
ARRIVED = """(id) => {
  const top = document.querySelector(id).getBoundingClientRect().top;
  return (top > -2 && top < 200) || innerHeight + scrollY >= document.documentElement.scrollHeight - 2;
}"""


def test_every_anchor_leads_to_what_it_names(browser: Browser, report: Path) -> None:
    with Opened(browser, report, width=360, reduced_motion="reduce") as opened:
        links = opened.page.locator("nav a")
        assert links.count() > 5
        for i in range(links.count()):
            target = links.nth(i).get_attribute("href")
            links.nth(i).click()
            assert opened.page.evaluate("location.hash") == target
            opened.page.wait_for_function(ARRIVED, arg=target)


def test_every_download_is_the_file_it_names(browser: Browser, report: Path) -> None:
    folder = RunFolder.open(report.parent)
    rows = json.loads(folder.results.read_text())["tasks"]["digits"]
    with Opened(browser, report) as opened:
        links, saved = opened.page.locator("a[download]"), {}
        for i in range(links.count()):
            name, content = opened.save(links.nth(i))
            assert name == links.nth(i).get_attribute("data-name")
            saved[name] = content
        assert opened.complaints == []
        assert [url for url in opened.requests if not url.startswith(("file:", "blob:"))] == []
    assert saved["config.yaml"] == folder.config.read_bytes()
    for name in ("results.json", "systems.json", "environment.json"):
        assert json.loads(saved[name]) == json.loads((folder.path / name).read_text())
    table = list(csv.DictReader(io.StringIO(saved["digits-table.csv"].decode())))
    means = [repr(row["test"]["loss"]["mean"]) if row["test"] else "" for row in rows]
    assert [line["test.loss.mean"] for line in table] == means
    chosen = {key for row in rows for key in row["runs"]}
    records = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    losses = [record["loss"] for record in records if record["kind"] != "run" and record["run"] in chosen]
    curves = csv.DictReader(io.StringIO(saved["digits-curves.csv"].decode()))
    assert sorted(float(line["loss"]) for line in curves) == pytest.approx(sorted(losses), rel=1e-8)
    looks = [event for event in map(json.loads, folder.events.read_text().splitlines()) if event["run"] in chosen]
    events = list(csv.DictReader(io.StringIO(saved["digits-events.csv"].decode())))
    assert sorted(int(line["step"]) for line in events) == sorted(look["step"] for look in looks)


def test_without_scripts_files_come_packed_and_the_page_says_so(browser: Browser, compared: RunFolder) -> None:
    with Opened(browser, compared.report, java_script_enabled=False) as opened:
        assert opened.page.get_by_text("Without scripts").is_visible()
        assert opened.page.get_by_role("button").count() == opened.page.get_by_role("slider").count() == 0
        assert opened.page.locator("#task1-table table").first.is_visible()
        assert opened.page.get_by_role("img").count() > 5
        name, content = opened.save(opened.page.locator("a[data-name='config.yaml']"))
        assert name == "config.yaml.gz" and gzip.decompress(content) == compared.config.read_bytes()
