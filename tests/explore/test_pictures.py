"""What the level score and the nesting show is what a run's memories did, at every width of the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Opened, marks, started_browser, until
from playwright.sync_api import Browser, Page, expect
from served_runs import made, point, serving

pytest.importorskip("uvicorn", reason='the page needs the extra "explore"')
pytest.importorskip("websockets", reason='the page needs the extra "explore"')

from nestlearn.explore.serving import Serving

pytestmark = marks

PERIOD = 4
STEPS = 40
MANY = ["mmm_mmm", "momentum", *(f"second_moment_{i}" for i in range(7))]


def lane(memory: str, period: int = 1) -> dict[str, Any]:
    named = {"name": f"{memory}/weight", "memory": memory, "role": "weight"}
    return {**named, "level": 1, "period": period, "parameters": 1, "part": None, "along": []}


def system(names: list[str]) -> dict[str, Any]:
    behind = [{"name": name, "symbol": name, "model": "box", "home": "optimizer"} for name in names]
    return {"name": "Made", "memories": [{"name": "weights", "model": "the weights", "home": "weights"}, *behind]}


def recorded(folder: Path, names: list[str], rows: list[list[float]], period: int = 1) -> None:
    """A record of the updates of W and of memories behind it."""
    lanes = [lane("matrix"), *(lane(f"matrix.{name}", period) for name in names)]
    made(folder, STEPS, lanes, frozen=())
    silent = [None] * len(lanes)
    looks = [{"step": i, "seconds": i, "surprise": silent, "update": row} for i, row in enumerate(rows, start=1)]
    (folder / "writes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [{"lanes": lanes}, *looks]))
    about = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**about, "run": folder.name, "systems": [system(names)]}))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    written = [0.0 if step % PERIOD else 1.0 + (step % (2 * PERIOD) == 0) for step in range(1, STEPS + 1)]
    recorded(root / "slow", ["slow"], [[1.0 / (1 + step), update] for step, update in enumerate(written)], PERIOD)
    recorded(root / "many", MANY, [[float(step + i) for i in range(len(MANY) + 1)] for step in range(STEPS)])
    plain = root / "plain"
    plain.mkdir()
    summary = {"kind": "run", "key": "plain", "task": "digits", "variant": "Made", "status": "finished"}
    (plain / "metrics.jsonl").write_text(point(1, 0.5, run="plain") + json.dumps(summary) + "\n")
    (plain / "systems.json").write_text(json.dumps({"digits": {"Made": system(["momentum"])}}))
    looks = [{"run": "plain", "step": step, "memory": "momentum", "surprise": 0.25 * step} for step in (1, 2, 3)]
    (plain / "events.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    return root


@pytest.fixture(scope="module")
def server(folders: Path) -> Iterator[Serving]:
    with serving(folders) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as browser:
        yield browser


@pytest.fixture
def opened(browser: Browser, server: Serving) -> Iterator[Opened]:
    with Opened(browser, server.url) as opened:
        yield opened
        assert opened.complaints == []


def chosen(page: Page, run: str, cards: int, key: str = "End") -> None:
    """A run, and its last step or its first."""
    page.locator(f"#runs label:has-text('{run}')").first.click()
    expect(page.locator("#title")).to_have_text(run)
    until(page, "explore.store()?.score.step.length > 0")
    expect(page.locator("#nesting .card")).to_have_count(cards)
    page.locator("#score").focus()
    page.keyboard.press(key)


def heats(page: Page) -> list[str]:
    return list(page.locator("#nesting .heat").all_text_contents())


def test_the_box_of_a_write_is_as_wide_as_the_period(opened: Opened) -> None:
    chosen(opened.page, "slow", 2, "Home")
    steps = f"""() => {{
        const canvas = document.getElementById("score"), [wide, ratio] = [canvas.width, devicePixelRatio];
        const lane = canvas.getContext("2d").getImageData(0, 33 * ratio, wide, 1).data;
        const at = (step) => 4 * Math.floor(wide * (step + 0.5) / {STEPS});
        return Array.from({{ length: {STEPS} }}, (_, step) => lane.slice(at(step), at(step) + 4).join());
    }}"""
    tones = opened.page.evaluate(steps)
    seen = [tones[i : i + PERIOD] for i in range(4, 32, PERIOD)]
    assert all(len(set(box)) == 1 for box in seen)
    assert len({box[0] for box in seen}) == 2  # the stronger writes, and the weaker


def test_why_a_memory_has_no_switch_is_true_of_optimizers_without_a_rule_too(opened: Opened) -> None:
    chosen(opened.page, "slow", 2)
    titles = [item.get_attribute("title") or "" for item in opened.page.locator("#lanes li").all()]
    assert titles[0].endswith("the weights themselves, which are what is trained")
    assert titles[1].endswith("nothing can be taken out of the optimizer that switches it off")


def test_a_memory_that_was_not_written_has_no_number(opened: Opened) -> None:
    page = opened.page
    chosen(page, "slow", 2)
    assert heats(page) == ["0.025", "2"]
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#nesting .heat").first).to_have_text("0.026")
    assert heats(page)[1] == "" and page.locator("#nesting .card.written").count() == 1


def test_the_nesting_stays_as_warm_when_the_page_gets_another_size(opened: Opened) -> None:
    page = opened.page
    chosen(page, "slow", 2)
    was = page.locator("#nesting").get_attribute("viewBox")
    page.set_viewport_size({"width": 700, "height": 900})
    expect(page.locator("#nesting")).not_to_have_attribute("viewBox", str(was))
    assert heats(page) == ["0.025", "2"]


@pytest.mark.parametrize("width", [400, 1280])
def test_names_and_numbers_lie_on_their_cards_and_apart(opened: Opened, width: int) -> None:
    page = opened.page
    page.set_viewport_size({"width": width, "height": 900})
    chosen(page, "many", len(MANY) + 1)
    overlaps = """() => [...document.querySelectorAll("#nesting .card")].flatMap((card) => {
        const box = (name) => card.querySelector(name).getBoundingClientRect();
        const [plate, label, heat, says] = [".plate", ".label", ".heat", ".says"].map(box);
        const inside = [label, heat, says].every((x) => x.left > plate.left && x.right < plate.right);
        return inside && label.bottom <= heat.top + 1 && heat.bottom <= says.top + 1 ? [] : [card.textContent];
    })"""
    assert page.evaluate(overlaps) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    title = page.locator("#nesting .card title").nth(1).text_content()
    assert title == f"{MANY[0]}: box. Its wirer is number 2. The number is its update."


def test_the_surprise_of_a_run_without_a_record_is_that_of_its_memory(opened: Opened) -> None:
    chosen(opened.page, "plain", 2)
    assert heats(opened.page) == ["", "0.75"]
