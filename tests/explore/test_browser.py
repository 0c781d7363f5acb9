"""The page in a browser: it fetches nothing from elsewhere, comes back, and believes nothing that a folder says."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import axe
import pytest
from chromium import Opened, marks, started_browser, until
from playwright.sync_api import Browser, Page, expect
from served_runs import FROZEN, LANES, grow, line, made, point, serving

pytest.importorskip("uvicorn", reason='the page needs the extra "explore"')
pytest.importorskip("websockets", reason='the page needs the extra "explore"')

from nestlearn.explore.serving import Serving

pytestmark = marks

LEGIBILITY = Path(__file__).parents[1] / "report" / "legibility.js"
EVIL = "<img src=https://evil.example/x onerror=window.hurt=1><script>window.hurt=1</script>"

# The process of a model that was never trained, at whatever folder it is asked for.
READER = """
import sys, torch
from pathlib import Path
from nestlearn import models
from nestlearn.cli import reading_job
from nestlearn.cli.own_reader import OwnReader
torch.manual_seed(0)
model = models.hope(256, 16, 1, 2, periods=(4, 8))
reading_job.load_reader = lambda folder: OwnReader(model, models.ByteTokenizer())
reading_job.reading_job(Path(sys.argv[1]), Path(sys.argv[2]), sys.stdin.buffer, sys.stdout.buffer)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run that grows under the tests, and one whose every word is an attack."""
    root = tmp_path_factory.mktemp("runs")
    (made(root / "b-mine", 40) / "model.json").write_text("{}")
    evil = made(
        root / "a-evil", 6, [{**lane, "memory": EVIL, "role": EVIL + str(i)} for i, lane in enumerate(LANES)], ()
    )
    memory = {"name": EVIL, "symbol": EVIL, "model": EVIL, "home": "optimizer"}
    about = {"run": EVIL, "systems": [{"name": EVIL, "memories": [memory, {**memory, "name": {"a": 1}}, 3]}]}
    (evil / "record.json").write_text(json.dumps(about))
    text = (
        json.dumps({**FROZEN, "step": 4}).replace("momentum", "M").replace("MLP 2-4-2", EVIL).replace("blocks.0", EVIL)
    )
    (evil / "frozen" / "4.json").write_text(text)
    (evil / "frozen" / "6.json").write_text(
        json.dumps({"parameters": [3, None, {"memories": [1, {"key": {"shape": "x"}}]}]})
    )
    (evil / "metrics.jsonl").write_text(point(3, 0.5, run=EVIL) + EVIL + "\n")
    return root


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("states")


@pytest.fixture(scope="module")
def server(folders: Path, states: Path) -> Iterator[Serving]:
    with serving(folders, command=[sys.executable, "-c", READER], states=states) as server:
        yield server


def kept_to_itself(opened: Opened, server: Serving) -> None:
    own = re.compile(rf"(http|ws)://127\.0\.0\.1:{server.port}/|data:")
    assert [url for url in opened.requests if not own.match(url)] == []
    assert opened.complaints == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(browser: Browser, server: Serving) -> Iterator[Opened]:
    with Opened(browser, server.url) as opened:
        yield opened
        kept_to_itself(opened, server)


def legible(page: Page) -> None:
    """No word is too faint for its paper, in the light and in the dark."""
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate(LEGIBILITY.read_text(encoding="utf-8"))
        assert (found["paper"] < 0.1) == (scheme == "dark") and len(found["words"]) > 20
        assert [word for word in found["words"] if word[1] < 4.5] == []


@pytest.fixture
def page(opened: Opened) -> Page:
    """The page with the run that grows."""
    page = opened.page
    page.get_by_role("radio", name="mine").focus()
    page.keyboard.press("Space")
    expect(page.locator("#title")).to_have_text("mine")
    until(page, "explore.store()?.latest >= 40")
    return page


def test_losses_lanes_and_the_nesting_are_drawn(page: Page) -> None:
    expect(page.locator("#now")).to_contain_text("training loss")
    assert page.locator("#lanes li").count() == 3  # six lanes, of two roles each
    assert page.locator("#losses canvas").count() == 1
    expect(page.locator("#nesting .card")).to_have_count(3)
    ink = "const c = document.getElementById('score'), d = c.getContext('2d').getImageData(0, 0, c.width, 20).data"
    assert page.evaluate(f"() => {{ {ink}; return new Set(d).size; }}") > 10


def test_all_of_it_works_from_the_keyboard(page: Page) -> None:
    fold = page.get_by_role("button", name=re.compile("L3 matrix.momentum, 2 roles"))
    fold.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#lanes li")).to_have_count(5)
    expect(fold).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#lanes li")).to_have_count(3)

    page.locator("#score").focus()
    page.keyboard.press("Home")
    expect(page.locator("#stepsays")).to_have_text("Step 1; step 10 is frozen")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#score")).to_have_attribute("aria-valuenow", "2")
    page.keyboard.press("PageDown")
    expect(page.locator("#stepsays")).to_have_text("Step 10")
    page.keyboard.press("PageDown")
    expect(page.locator("#stepsays")).to_have_text("Step 30")
    words = page.locator("#step").inner_text()
    assert "MLP 2-4-2, l2, surprise 0.125" in words and "before the read-out: 3, 0.1" in words
    for name in ("key", "value", "answer", "error", "write of inner", "change of the weights", "the rule's update"):
        assert f"{name}, 2×2, rms 0.5, largest 1" in words
    page.get_by_text("numbers", exact=True).first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#step pre").first).to_have_text(re.compile(r"1\s+−0\.5\s+0\.25\s+0"))


def test_a_click_chooses_the_step_below_it(page: Page) -> None:
    box = page.locator("#score").bounding_box()
    assert box is not None
    latest = page.evaluate("explore.store().score.step.at(-1)")
    page.locator("#score").click(position={"x": box["width"] * 20 / latest, "y": 10})
    expect(page.locator("#score")).to_have_attribute("aria-valuenow", "20")


def test_fewer_steps_are_seen_closer(page: Page) -> None:
    latest = page.evaluate("explore.store().score.step.at(-1)")
    page.locator("#score").focus()
    page.keyboard.press("Home")
    page.keyboard.press("+")
    expect(page.locator("#seen")).to_have_text("steps 0 to 10")
    until(page, "explore.score.rows()[2].values.length < 11")
    assert page.evaluate("Array.from(explore.score.rows()[2].values)") == [step + 0.375 for step in range(1, 11)]
    page.keyboard.press("End")
    expect(page.locator("#score")).to_have_attribute("aria-valuenow", "10")
    page.get_by_role("button", name="All steps").click()
    expect(page.locator("#seen")).to_have_text("")
    page.locator("#score").focus()
    for key in ("End", "+"):  # at the end there are no steps behind it to show
        page.keyboard.press(key)
    expect(page.locator("#seen")).to_have_text(f"steps {latest - 10} to {latest}")
    page.keyboard.press("0")
    expect(page.locator("#seen")).to_have_text("")
    until(page, f"explore.score.rows()[2].values.length === {latest}")


@pytest.mark.parametrize("width", [400, 1280])
def test_it_is_read_on_light_and_dark_paper_narrow_and_wide(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.locator("#score").focus()
    page.keyboard.press("Home")
    expect(page.locator("#step select")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    legible(page)
    page.set_viewport_size({"width": 1280, "height": 900})


@axe.marks
def test_axe_finds_nothing(page: Page) -> None:
    page.locator("#score").focus()
    page.keyboard.press("Home")
    expect(page.locator("#step select")).to_be_visible()
    assert axe.violations(page) == []


def test_whatever_can_be_moved_has_a_name(page: Page) -> None:
    told = page.locator("body").aria_snapshot()
    moved = re.findall(r"^\s*- (button|checkbox|slider|radio|combobox)\b(.*)$", told, re.MULTILINE)
    assert len(moved) >= 6 and [each for each in moved if not re.match(r' "[^"]+"', each[1])] == []


def test_what_a_run_writes_is_seen_and_a_dropped_connection_goes_on(page: Page, folders: Path) -> None:
    grow(folders / "b-mine", 41, 45)
    until(page, "explore.store().latest === 45")
    page.evaluate("explore.drop()")
    grow(folders / "b-mine", 46, 50)
    until(page, "explore.store().latest === 50")
    for steps in ("train.step", "score.step"):
        assert page.evaluate(f"explore.store().{steps}") == list(range(1, 51))
    assert page.evaluate("explore.store().score.high[4]") == [step + 0.5 for step in range(1, 51)]
    expect(page.locator("#status")).to_have_text("")
    expect(page.locator("#now")).to_contain_text("step 50")


def test_the_loss_of_another_run_is_drawn_beside(page: Page) -> None:
    count = "explore.losses.lines()"
    assert page.evaluate(count) == 2
    page.get_by_role("checkbox", name=re.compile("Draw the loss of <img")).check()
    until(page, f"{count} === 3")
    expect(page.locator("#beside span")).to_have_text(["train", "validation", EVIL])
    page.get_by_role("checkbox", name=re.compile("Draw the loss of <img")).uncheck()
    until(page, f"{count} === 2")


def test_a_record_that_was_rewritten_is_shown_anew(page: Page, folders: Path) -> None:
    writes = folders / "b-mine" / "writes.jsonl"
    head = writes.read_text().partition("\n")[0]
    (folders / "new").write_text(head + "\n" + "".join(line(step) for step in range(2, 61, 2)))
    (folders / "new").replace(writes)
    until(page, "explore.store().latest === 60")
    assert page.evaluate("explore.store().score.step") == list(range(2, 61, 2))


def test_a_hostile_folder_shows_text_and_runs_nothing(opened: Opened) -> None:
    page = opened.page
    page.get_by_role("radio", name=re.compile("<img")).focus()
    page.keyboard.press("Space")
    expect(page.locator("#title")).to_have_text(EVIL)
    until(page, "explore.store().latest === 6")
    page.locator("#lanes button").first.click()
    page.locator("#score").focus()
    page.keyboard.press("Home")
    expect(page.locator("#step")).to_contain_text(EVIL)
    page.keyboard.press("End")
    expect(page.locator("#stepsays")).to_have_text("Step 6")
    page.wait_for_timeout(100)
    assert page.evaluate("window.hurt") is None
    assert page.locator("img, iframe, main script").count() == 0 and page.locator("body").inner_text().count("<img") > 4


TEXT = f"{EVIL} — four score"
SIZE = len(TEXT.encode())


def press(page: Page, button: str) -> None:
    found = page.get_by_role("button", name=button, exact=True)
    expect(found).to_be_enabled()
    found.focus()
    page.keyboard.press("Enter")


def read(page: Page, seen: int) -> None:
    """Let the model read the text; afterwards its state has seen so many tokens."""
    page.get_by_label("A text to read").fill(TEXT)
    press(page, "Read")
    expect(page.locator("#state")).to_contain_text(f"{seen} tokens were read, {SIZE} of them here")


@pytest.fixture(scope="module")
def reading(browser: Browser, server: Serving) -> Iterator[Page]:
    """The page of a model that has read a text."""
    with Opened(browser, server.url) as opened:
        page = opened.page
        page.get_by_role("link", name="Read a text").click()
        expect(page.get_by_label("Model")).to_contain_text("b-mine")
        press(page, "Open")
        read(page, SIZE)
        yield page
        kept_to_itself(opened, server)


def test_what_a_text_does_to_memories_is_seen_token_by_token(reading: Page) -> None:
    page = reading
    expect(page.locator("#words")).to_have_text(TEXT)
    assert page.locator("main img, main script").count() == 0 and page.evaluate("window.hurt") is None
    expect(page.locator("#chosen")).to_have_text("no token is chosen")
    page.locator("#words").focus()
    page.keyboard.press("End")
    said = rf'token {SIZE}, "e": \d.*; its piece moved \S+ most, by'
    expect(page.locator("#chosen")).to_have_text(re.compile(said))
    rows = page.locator("#memories tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text(re.compile(r"1\.blocks\.0.*every 4 tokens.*0\.0"))
    expect(rows.nth(1).locator("canvas")).to_have_attribute("aria-label", re.compile(r"moved by 0\.\d+ at most"))


def test_a_state_is_saved_cut_restored_and_asked(reading: Page, states: Path) -> None:
    page, state = reading, reading.locator("#state")
    page.get_by_label("Name").fill("before")
    press(page, "Save")
    expect(page.get_by_label("Saved")).to_contain_text("before")
    assert [path.name for path in states.iterdir()] == ["before.safetensors"]
    page.get_by_label("Take away the last").fill("11")
    press(page, "Take away")
    expect(page.locator("#words")).to_have_text(f"{EVIL} —")
    press(page, "Restore")
    expect(state).to_contain_text(f"{SIZE} tokens were read, 0 of them here")
    page.get_by_label("What it reads first").fill("And?")
    page.locator("#tokens").fill("8")
    press(page, "Ask")
    expect(page.locator("#answer")).not_to_be_empty()
    expect(page.get_by_role("button", name="Ask")).to_be_enabled()
    expect(state).to_contain_text(f"{SIZE} tokens were read, 0 of them here")
    read(page, 2 * SIZE)
    press(page, "Forget all")
    expect(state).to_contain_text("0 tokens were read")
    read(page, SIZE)


@axe.marks
def test_the_reading_page_is_read_by_everybody(reading: Page) -> None:
    page = reading
    for width in (400, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    legible(page)
    assert axe.violations(page) == []


def test_the_page_of_a_foreign_origin_gets_nothing(browser: Browser, server: Serving) -> None:
    context = browser.new_context()
    foreign = context.new_page()
    foreign.goto("data:text/html,<title>foreign</title>")
    script = """async ([port, token]) => {
        const headers = { Authorization: `Bearer ${token}` };
        const asked = fetch(`http://127.0.0.1:${port}/api/runs`, { headers });
        const read = await asked.then((answer) => answer.text(), () => "nothing");
        const heard = await new Promise((done) => {
            const socket = new WebSocket(`ws://127.0.0.1:${port}/api/live`, ["nestlearn", token]);
            socket.onopen = () => done("open");
            socket.onerror = () => done("nothing");
        });
        return [read, heard];
    }"""
    assert foreign.evaluate(script, [server.port, server.token]) == ["nothing", "nothing"]
    context.close()
