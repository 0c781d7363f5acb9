"""A pretrained model with a continuum reads for the page: in a process, through the server, and in a browser."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import stacked_model
from chromium import Opened, marks, started_browser
from playwright.sync_api import Page, expect
from served_runs import get, serving
from stacked_model import PERIOD, TEXT

pytest.importorskip("uvicorn", reason='the page needs the extra "explore"')
pytest.importorskip("websockets", reason='the page needs the extra "explore"')

from nestlearn.explore.runs import STACKED
from nestlearn.explore.serving import Serving
from nestlearn.models.stacking_settings import FILE

EVIL = "<img src=x onerror=window.hurt=1>"
READ = f"{TEXT} {EVIL}!"
JOB = [sys.executable, "-P", "-m", "nestlearn.cli.reading_job"]
SIZE = len(stacked_model.tokenizer()(READ, add_special_tokens=False)["input_ids"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose folder has an attack for its name, and one that is an attack."""
    root = tmp_path_factory.mktemp("models")
    stacked_model.folder(root / EVIL)
    (root / "broken").mkdir()
    (root / "broken" / "continuum.json").write_text(json.dumps({EVIL: EVIL}))
    return root


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("states")


@pytest.fixture(scope="module")
def server(models: Path, states: Path) -> Iterator[Serving]:
    with serving(models, command=JOB, states=states) as server:
        yield server


def test_the_server_knows_the_file_by_its_name_without_torch() -> None:
    assert STACKED == FILE


def put(server: Serving, model: str, do: str, **given: Any) -> list[dict[str, Any]]:
    told = {"Authorization": f"Bearer {server.token}"}
    question = json.dumps({"model": model, "do": do, **given}).encode()
    with urlopen(Request(f"http://127.0.0.1:{server.port}/api/read", question, told), timeout=300) as answer:
        return [json.loads(line) for line in answer]


@pytest.mark.slow
def test_programs_let_it_read_and_go_back_and_ask(server: Serving, models: Path, states: Path) -> None:
    listed = {each["name"]: each["id"] for each in json.loads(get(server, "/api/read")[1])["models"]}
    assert listed.keys() == {str(models / EVIL), str(models / "broken")}
    assert json.loads(get(server, "/api/runs")[1])["runs"] == []
    model = listed[str(models / EVIL)]
    (opened,) = put(server, model, "open")
    assert opened["about"]["window"] == 2048
    assert opened["about"]["memories"] == [
        {"name": name, "layer": "Linear 24 → 16", "period": PERIOD} for name in ("1.down", "2.down")
    ]
    *pieces, read = put(server, model, "read", text=READ, piece=PERIOD)
    assert "".join(text for piece in pieces for text, _, _ in piece["words"]) == READ
    assert sum(count for piece in pieces for _, _, count in piece["words"]) == read["done"]["here"] == SIZE
    assert all(piece["moved"]["2.down"] > 0 for piece in pieces[1:]) and pieces[0]["moved"]["2.down"] == 0
    assert 0 < read["done"]["far"]["2.down"] < 1
    assert put(server, model, "save", name="read")[-1]["done"] == read["done"]
    *said, after = put(server, model, "ask", question="And?", tokens=3)
    assert len(said) == 4 and after["done"] == read["done"]
    (cut,) = put(server, model, "cut", tokens=PERIOD)
    assert cut["done"]["here"] == SIZE - PERIOD
    assert SIZE % PERIOD, "the token that waited makes no write due"
    (restored,) = put(server, model, "restore", name="read")
    assert (restored["done"]["here"], restored["done"]["seen"]) == (0, SIZE)
    assert restored["done"]["far"] == pytest.approx(read["done"]["far"])
    (refused,) = put(server, listed[str(models / "broken")], "open")
    assert re.search(r"continuum\.json.*unknown setting", refused["error"])


def press(page: Page, button: str) -> None:
    found = page.get_by_role("button", name=button, exact=True)
    expect(found).to_be_enabled(timeout=120_000)
    found.click()


class TestPage:
    pytestmark = marks

    def test_what_is_written_where_is_seen(self, server: Serving, models: Path, states: Path) -> None:
        with started_browser() as browser, Opened(browser, server.url) as opened:
            page = opened.page
            page.get_by_role("link", name="Read a text").click()
            page.get_by_label("Model").select_option(label=str(models / EVIL))
            press(page, "Open")
            expect(page.locator("#model-says")).to_contain_text(
                "2 memories; attention begins anew after 2,048 tokens", timeout=120_000
            )
            press(page, "Forget all")
            page.get_by_label("A text to read").fill(READ)
            page.get_by_label("Pieces of").select_option("1")
            press(page, "Read")
            state = page.locator("#state")
            expect(state).to_contain_text(f"{SIZE} tokens were read, {SIZE} of them here", timeout=120_000)
            expect(page.locator("#words")).to_have_text(READ)
            row = page.locator("#memories tr").nth(1)
            expect(row).to_contain_text(re.compile(r"2\.downLinear 24 → 16, every 4 tokens"))
            last, far = (float(row.locator("td").nth(place).inner_text()) for place in (1, 2))
            assert 0 < last < far < 1  # of the last write, though nothing was written in the last piece
            page.get_by_label("Name").fill("seen")
            press(page, "Save")
            expect(page.get_by_label("Saved")).to_contain_text("seen", timeout=30_000)
            press(page, "Restore")
            expect(state).to_contain_text(f"{SIZE} tokens were read, 0 of them here", timeout=30_000)
            expect(row.locator("td").nth(1)).to_have_text("")
            page.get_by_label("Model").select_option(label=str(models / "broken"))
            press(page, "Open")
            expect(page.locator("#status")).to_contain_text("unknown setting", timeout=120_000)
            expect(page.locator("#status")).to_contain_text(EVIL)
            assert page.evaluate("window.hurt") is None and page.locator("img, iframe, main script").count() == 0
            own = re.compile(rf"(http|ws)://127\.0\.0\.1:{server.port}/|data:")
            assert [url for url in opened.requests if not own.match(url)] == [] and opened.complaints == []
