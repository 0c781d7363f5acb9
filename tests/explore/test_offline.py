"""The page without a server: as a file."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import axe
import pytest
from chromium import Opened, marks, started_browser
from playwright.sync_api import Browser, Page, expect
from served_runs import FROZEN, LANES, made, point
from typer.testing import CliRunner

from nestlearn.cli.main import build_entry
from nestlearn.errors import RunFolderError
from nestlearn.explore import Shelf
from nestlearn.explore.bundle import page as page_text
from nestlearn.explore.export import held, write_page

EVIL = "=1+</script><img src=https://evil.example/x onerror=window.hurt=1>,\"'"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    evil = made(root / "a-evil", 6, [{**lane, "memory": EVIL} for lane in LANES], ())
    (evil / "metrics.jsonl").write_text(point(3, 0.5, run=EVIL))
    (evil / "record.json").write_text(json.dumps({"run": EVIL, "systems": []}))
    made(root / "b-mine", 40)
    return root


def test_a_file_holds_lines_systems_and_frozen_steps(folders: Path) -> None:
    told = held(Shelf([folders]))
    assert str(folders) not in json.dumps(told)  # who gets the file need not learn where it lies
    _, mine = told["runs"]
    assert mine["folder"] == "b-mine" and mine["series"]["train"]["loss"] == pytest.approx(
        [1 / step for step in range(1, 41)], rel=1e-5
    )
    assert mine["frozen"] == [10, 30] and mine["steps"] == {str(at): {**FROZEN, "step": at} for at in (10, 30)}
    assert mine["score"]["steps"] == list(range(1, 41)) and mine["systems"][0]["name"] == "Muon"


@pytest.fixture
def forked(tmp_path: Path) -> Path:
    """A folder with a run and a fork of it."""
    parent, child = made(tmp_path / "a-parent", 20), made(tmp_path / "b-child", 30)
    changed = ["optimizer.without: was None, now momentum"]
    about = {"folder": str(parent), "run": "mine", "step": 20, "changed": changed}
    (child / "fork.json").write_text(json.dumps(about))
    return tmp_path


def test_a_fork_says_what_it_comes_from_and_not_where_that_lies(forked: Path) -> None:
    told = held(Shelf([forked]))
    parent, child = told["runs"]
    changed = ["optimizer.without: was None, now momentum"]
    assert child["forked"] == {"id": parent["id"], "folder": "a-parent", "step": 20, "changed": changed}
    assert parent["forked"] is None and str(forked) not in json.dumps(told)


def test_frozen_steps_are_spread_over_the_run_and_no_more_than_fit(tmp_path: Path) -> None:
    made(tmp_path / "long", 40, frozen=tuple(range(1, 41)))
    most = 40_000
    told = held(Shelf([tmp_path]), most=most)
    (run,) = told["runs"]
    assert len(json.dumps(told, separators=(",", ":"))) <= most + 200  # what was left out is said besides
    kept = run["frozen"]
    assert kept[0] == 1 and kept[-1] == 40 and 5 < len(kept) < 40
    gaps = [later - earlier for earlier, later in pairwise(kept)]
    assert max(gaps) <= 2 * min(gaps) + 1
    assert told["notes"] == [f"mine: {len(kept)} of 40 frozen steps are in this page"]


def test_lines_have_fewer_points_until_they_fit(folders: Path) -> None:
    _, mine = held(Shelf([folders]), most=12_000)["runs"]
    assert 8 <= len(mine["score"]["steps"]) < 40 and mine["score"]["steps"][-1] == 40
    with pytest.raises(
        RunFolderError, match="16 points each; expected at most 500, half of the bound: name fewer runs"
    ):
        held(Shelf([folders]), most=1000)


def test_nothing_is_written_where_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="there is nothing to write"):
        write_page(Shelf([tmp_path]), tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_who_reads_a_file_that_is_written_anew_sees_the_old_one_whole(folders: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("the page before")
    with file.open() as opened:
        write_page(Shelf([folders]), file)
        assert opened.read() == "the page before"
    assert file.read_text().startswith("<!doctype html>")


def test_json_and_a_file_are_not_asked_for_at_once(folders: Path, tmp_path: Path) -> None:
    words = ["explore", str(folders), "--json", "--export", str(tmp_path / "page.html")]
    call = CliRunner().invoke(build_entry(), words)
    assert call.exit_code == 2 and "expected either --json or --export, got both" in call.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_file_names_no_other_and_only_its_own_script_may_run() -> None:
    text = page_text(None)
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert not re.search(r"^(import|export) ", text, re.MULTILINE) and text.count("</script>") == 2
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert re.match(
        r"default-src 'none'; script-src 'sha256-[^' ]+'; style-src 'sha256-[^' ]+'; img-src data:;", policy
    )
    assert "unsafe" not in policy and "*" not in policy and len(text) < 260_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(browser: Browser, folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """The file as the command writes it."""
    file = tmp_path_factory.mktemp("out") / "below" / "runs.html"
    call = CliRunner().invoke(build_entry(), ["explore", str(folders), "--export", str(file)])
    assert call.exit_code == 0 and call.output.strip() == str(file)
    with Opened(browser, file) as opened:
        yield opened
        assert [url for url in opened.requests if not re.match(r"data:|blob:", url)] == [file.as_uri()]
        assert opened.complaints == []


def chosen(opened: Opened, name: str) -> Page:
    page = opened.page
    page.get_by_role("radio", name=name).focus()
    page.keyboard.press("Space")
    return page


class TestFile:
    pytestmark = marks

    def test_it_shows_what_the_server_shows(self, opened: Opened) -> None:
        page = chosen(opened, "mine")
        expect(page.locator("#now")).to_have_text("step 40, training loss 0.025, open")
        expect(page.locator("#lanes li")).to_have_count(3)
        expect(page.locator("#nesting .card")).to_have_count(3)
        page.locator("#score").focus()
        page.keyboard.press("Home")
        expect(page.locator("#stepsays")).to_have_text("Step 1; step 10 is frozen")
        assert "MLP 2-4-2, l2, surprise 0.125" in page.locator("#step").inner_text()
        page.keyboard.press("+")
        expect(page.locator("#seen")).to_have_text("steps 0 to 10")
        page.get_by_role("button", name="All steps").click()
        page.get_by_role("checkbox", name=re.compile("beside")).first.check()
        expect(page.locator("#beside span")).to_have_text(["train", "validation", EVIL])
        page.get_by_role("checkbox", name=re.compile("beside")).first.uncheck()
        assert "Blue cells are above zero, purple ones below" in page.locator("#step").inner_text()

    def test_a_fork_is_drawn_over_what_it_comes_from(self, browser: Browser, forked: Path, tmp_path: Path) -> None:
        with Opened(browser, write_page(Shelf([forked]), tmp_path / "forked.html")) as opened:
            page = opened.page
            expect(page.locator("#row")).to_have_text(
                "from step 20 of a-parent: optimizer.without: was None, now momentum"
            )
            expect(page.locator("#beside span")).to_have_text(["train", "validation", "mine"])
            expect(page.locator("#differs")).to_be_visible()
            assert opened.complaints == []

    def test_losses_are_saved_as_numbers_and_as_pictures(self, opened: Opened) -> None:
        page = chosen(opened, "mine")
        name, data = opened.save(page.get_by_role("button", name="Save losses as CSV"))
        head, *rows = csv.reader(io.StringIO(data.decode()))
        assert name == "mine-losses.csv" and head == ["curve", "step", "loss"]
        assert [row[:2] for row in rows] == [*(["train", str(step)] for step in range(1, 41)), ["validation", "40"]]
        assert [float(row[2]) for row in rows[:40]] == pytest.approx([1 / step for step in range(1, 41)], rel=1e-5)

        name, data = opened.save(page.get_by_role("button", name="Save losses as SVG"))
        line = ElementTree.fromstring(data).find("{*}path[{*}title='train']")
        assert name == "mine-losses.svg" and line is not None
        points = [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+),([\d.]+)", line.attrib["d"])]
        (x1, y1), (x2, y2), (x4, y4) = (points[step - 1] for step in (1, 2, 4))
        assert x4 - x2 == pytest.approx(2 * (x2 - x1), abs=0.2)  # steps are even, and a half is two thirds of the way
        assert y2 - y1 == pytest.approx(2 * (y4 - y2), abs=0.3) and y2 > y1

        name, data = opened.save(page.get_by_role("button", name="Save losses as PNG"))
        assert name == "mine-losses.png" and data.startswith(b"\x89PNG") and len(data) > 5000
        assert [int.from_bytes(data[at : at + 4]) for at in (16, 20)] == [1920, 720]

    def test_the_level_score_is_saved_as_numbers_and_as_a_picture(self, opened: Opened) -> None:
        page = chosen(opened, "mine")
        _, data = opened.save(page.get_by_role("button", name="Save level score as CSV"))
        rows = [row for row in csv.DictReader(io.StringIO(data.decode())) if row["memory"] == "matrix.momentum"]
        assert [float(row["high"]) for row in rows] == [
            *(s + 0.5 for s in range(1, 41)),
            *(s + 0.25 for s in range(1, 41)),
        ]
        assert {row["measure"] for row in rows} == {"surprise"} and rows[0]["low"] == rows[0]["high"]

        _, data = opened.save(page.get_by_role("button", name="Save level score as SVG"))
        picture = ElementTree.fromstring(data)
        words = [each.text for each in picture.iterfind("{*}text")]
        assert {"L3 matrix.momentum, 2 roles", "L2 matrix.slow, every 4, 2 roles"} <= set(words)
        fills = [each.attrib["fill"] for each in picture.iterfind("{*}rect") if float(each.attrib.get("y", 0)) > 60]
        assert len(set(fills)) > 20  # the surprise of the momentum grows, box by box

    def test_a_hostile_run_is_text_in_every_file(self, opened: Opened) -> None:
        page = chosen(opened, "evil.example")
        expect(page.locator("#title")).to_have_text(EVIL)
        expect(page.locator("#lanes li")).to_have_count(3)
        name, data = opened.save(page.get_by_role("button", name="Save level score as CSV"))
        assert re.fullmatch(r"[\w.-]+\.csv", name) and not name.startswith(".")
        assert {row["memory"] for row in csv.DictReader(io.StringIO(data.decode()))} == {"'" + EVIL}
        page.get_by_role("checkbox", name="Draw the loss of mine beside").check()
        expect(page.locator("#beside span")).to_have_text(["train", "mine"])
        _, data = opened.save(page.get_by_role("button", name="Save losses as CSV"))
        curves = [row["curve"] for row in csv.DictReader(io.StringIO(data.decode()))]
        assert curves == ["train"] + ["mine"] * 40
        page.get_by_role("checkbox", name="Draw the loss of mine beside").uncheck()
        _, data = opened.save(page.get_by_role("button", name="Save level score as SVG"))
        assert ElementTree.fromstring(data).findtext("{*}title") == EVIL
        assert page.evaluate("window.hurt") is None and page.locator("img").count() == 0

    @axe.marks
    def test_axe_finds_nothing(self, opened: Opened) -> None:
        assert axe.violations(chosen(opened, "mine")) == []
