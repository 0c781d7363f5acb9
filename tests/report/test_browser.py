"""A report in a browser: light and dark, wide and narrow, with and without scripts, and not one request."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Opened, marks, started_browser
from playwright.sync_api import Browser
from typer.testing import CliRunner

from nestlearn.cli.main import build_app
from nestlearn.report import write_report
from nestlearn.training import RunFolder

VIEWS = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 360)]

pytestmark = marks


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as browser:
        yield browser


def run(path: Path, verb: str, options: str) -> RunFolder:
    outcome = CliRunner().invoke(build_app(), [verb, "--quiet", "--out", str(path), *options.split()])
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
            opened.page.wait_for_function(ARRIVED, arg=target, timeout=5000)


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
        name, content = opened.save(opened.page.locator("a[data-name='config.yaml']"))
        assert name == "config.yaml.gz" and gzip.decompress(content) == compared.config.read_bytes()
