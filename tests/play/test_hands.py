"""The playground under the hands of a reader: it runs by itself, answers at once, is read and moved everywhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import axe
import pytest
from chromium import Opened, marks, started_browser
from playwright.sync_api import Browser, Page

from nestlearn.play import write_page

pytestmark = marks

SECONDS = 0.05
LEGIBILITY = Path(__file__).parents[1] / "report" / "legibility.js"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("play") / "page.html")


@pytest.fixture(scope="module")
def still(browser: Browser, path: Path) -> Iterator[Page]:
    """A page that does not move by itself, as its reader asked for."""
    with Opened(browser, path, height=800, reduced_motion="reduce") as opened:
        yield opened.page
        assert opened.requests == [path.as_uri()] and opened.complaints == []


def step(page: Page) -> int:
    return int(page.get_by_role("slider", name="Step", exact=True).input_value())


def address(page: Page, part: str) -> str:
    """The fragment of the page's address, once it has this part: it is written when the hand rests."""
    page.wait_for_function("(part) => `${location.hash}&`.includes(part)", arg=part)
    found: str = page.evaluate("location.hash")
    return found


def opened_at(page: Page, fragment: str) -> Page:
    page.evaluate("(hash) => playground.open(hash)", fragment)
    return page


def test_it_runs_by_itself_unless_motion_is_not_wanted(browser: Browser, path: Path, still: Page) -> None:
    assert step(opened_at(still, "")) == 150
    with Opened(browser, path) as opened:
        opened.page.wait_for_function("() => document.getElementById('scrub').value > 2")
        opened.page.get_by_role("button", name="Pause").click()
        stopped = step(opened.page)
        assert 0 < stopped < 150
        opened.page.get_by_role("button", name="One step").click()
        assert step(opened.page) == stopped + 1
        assert opened.page.get_by_role("button", name="Play").is_visible()


def test_every_rung_fits_on_one_screen_and_on_a_phone(still: Page) -> None:
    overflow = """() => { const { scrollWidth, scrollHeight } = document.documentElement;
      return [scrollWidth - innerWidth, scrollHeight - innerHeight]; }"""
    inside = """() => { const right = document.querySelector(".right");
      return Math.max(right.scrollHeight - right.clientHeight, right.scrollWidth - right.clientWidth); }"""
    for world in ("ravine", "regression"):
        for rung in still.evaluate("playground.rungs"):
            still.set_viewport_size({"width": 1280, "height": 800})
            opened_at(still, f"#rung={rung}&world={world}&signs=ours&step=40")
            assert still.evaluate(overflow) == [0, 0], rung
            assert still.evaluate(inside) <= 1, rung
        still.set_viewport_size({"width": 400, "height": 800})
        assert still.evaluate(overflow)[0] == 0
    still.set_viewport_size({"width": 1280, "height": 800})


def test_words_are_legible_in_the_light_and_in_the_dark(still: Page) -> None:
    opened_at(still, "#rung=brain&step=40&own=true")
    for scheme in ("light", "dark"):
        still.emulate_media(color_scheme=scheme)
        found = still.evaluate(LEGIBILITY.read_text(encoding="utf-8"))
        assert (found["paper"] < 0.1) == (scheme == "dark")
        assert len(found["words"]) > 40
        assert [word for word in found["words"] if word[1] < 4.5] == []
        assert found["smallest"] > 10
    still.emulate_media(color_scheme="light", reduced_motion="reduce")


@axe.marks
def test_axe_finds_nothing(still: Page) -> None:
    opened_at(still, "#rung=speeds&world=regression&step=40")
    assert axe.violations(still) == []
    still.emulate_media(color_scheme="dark", reduced_motion="reduce")
    still.set_viewport_size({"width": 400, "height": 800})
    opened_at(still, "#rung=brain&step=40&own=true")
    assert axe.violations(still) == []
    still.emulate_media(color_scheme="light", reduced_motion="reduce")
    still.set_viewport_size({"width": 1280, "height": 800})


def test_whatever_can_be_moved_has_a_name(still: Page) -> None:
    told = opened_at(still, "#rung=speeds&world=regression&step=40").locator("body").aria_snapshot()
    moved = re.findall(r"^\s*- (button|slider|radio|textbox|checkbox)\b(.*)$", told, re.MULTILINE)
    assert len(moved) > 30
    assert [each for each in moved if not re.match(r' "[^"]+"', each[1])] == []
    assert all(re.match(r' "[^"]+"', each) for each in re.findall(r"^\s*- img\b(.*)$", told, re.MULTILINE))


def test_all_of_it_works_from_the_keyboard(still: Page) -> None:
    opened_at(still, "")
    still.get_by_role("radio", name="The wirer alone").focus()
    still.keyboard.press("ArrowDown")
    assert address(still, "box") == "#rung=box"
    assert "Momentum is a second memory" in still.locator("#says").inner_text()
    still.keyboard.press("Space")
    assert still.get_by_role("button", name="Pause").is_visible()
    still.keyboard.press("Space")
    assert still.get_by_role("button", name="Play").is_visible()
    still.get_by_role("slider", name="learning rate").focus()
    still.keyboard.press("ArrowRight")
    address(still, "&lr=")
    still.get_by_role("slider", name="Start of W").focus()
    still.keyboard.press("ArrowUp")
    address(still, "&start=-2,1.1&")
    still.locator("body").evaluate("document.activeElement.blur()")
    still.keyboard.press("Home")
    still.keyboard.press("ArrowRight")
    still.keyboard.press("ArrowRight")
    assert step(still) == 2
    still.get_by_role("button", name="Control without M").focus()
    still.keyboard.press("Enter")
    address(still, "&off=&")
    assert still.get_by_role("button", name="Control without M").evaluate("(one) => one === document.activeElement")


def test_the_start_is_dragged_and_the_path_follows_the_hand(still: Page) -> None:
    opened_at(still, "#rung=box")
    knob = still.get_by_role("slider", name="Start of W").locator(".knob").bounding_box()
    assert knob is not None
    before = still.locator("path.path.row0").first.get_attribute("d")
    still.mouse.move(knob["x"] + 7, knob["y"] + 7)
    still.mouse.down()
    still.mouse.move(knob["x"] + 67, knob["y"] + 47)
    still.mouse.up()
    x, y = map(float, still.evaluate("playground.report().state.start").split(","))
    assert x > -1.9 and y < 0.9
    assert still.locator("path.path.row0").first.get_attribute("d") != before


def test_an_address_brings_everything_back(browser: Browser, path: Path, still: Page) -> None:
    opened_at(
        still, "#rung=deeper&world=regression&signs=ours&seed=9&lr=0.031&noise=0.4&own=true&off=M1&start=1,1,-1,0.5"
    )
    still.get_by_role("button", name="To the start").click()
    still.get_by_role("button", name="One step").click()
    wanted, fragment = still.evaluate("playground.report()"), address(still, "&step=1&")
    assert wanted["state"]["step"] == 1 and len(fragment) < 150
    with Opened(browser, path, fragment=fragment, reduced_motion="reduce") as opened:
        assert opened.page.evaluate("playground.report()") == wanted
        assert step(opened.page) == 1
        assert opened.page.get_by_role("radio", name="A brain behind the brain").is_checked()


def test_an_address_that_nobody_wrote_does_no_harm(still: Page) -> None:
    opened_at(still, "#rung=<b>&world=constructor&lr=1e9&noise=x&start=1&off=W,M,__proto__&seed=-1&step=9999")
    found = still.evaluate("playground.report()")["state"]
    assert found["rung"] == "wirer" and found["world"] == "ravine" and found["off"] == "" and found["step"] is None
    assert found["lr"] == 2 and found["noise"] == 1 and found["start"] == "-2,1" and found["seed"] == 7


def test_what_is_copied_is_the_program_and_the_link(still: Page) -> None:
    opened_at(still, "#rung=adam")
    still.evaluate("navigator.clipboard.writeText = async (text) => { globalThis.copied = text; }")
    still.get_by_role("button", name="Copy as Python").click()
    still.wait_for_function("() => globalThis.copied")
    assert still.evaluate("copied") == still.evaluate("playground.report().python")
    assert "nestlearn" in still.get_by_role("status").inner_text()
    still.get_by_role("button", name="Copy link").click()
    still.wait_for_function("() => globalThis.copied.endsWith('#rung=adam')")


def test_numbers_stand_in_the_equations_and_in_the_signs_that_were_chosen(still: Page) -> None:
    opened_at(still, "#rung=box&step=3")
    read = "[...document.querySelectorAll('.formula')].map((one) => one.textContent.replaceAll('\\u2212', '-'))"
    told = still.evaluate(read)
    path = still.evaluate("playground.report().path")
    moved = [path[3][0][i] - path[2][0][i] for i in range(2)]
    assert told[0] == "Mt+1=βMt-η∇L" and told[2] == "Wt+1=Wt+Mt+1"
    assert told[1].startswith(f"({moved[0]:.2g},{moved[1]:.2g})=0.9(") and "-0.005(" in told[1]
    still.get_by_role("radio", name="nestlearn").check(force=True)
    assert still.evaluate(read)[0] == "M←αM+u"


def test_the_control_is_tuned_behind_the_answer_to_a_hand(still: Page) -> None:
    legend = "document.getElementById('legend').innerText"
    drawn = "document.querySelector('#map path.ghost').getAttribute('d')"
    own = still.get_by_role("button", name="at its best rate")
    opened_at(still, "#rung=brain&world=quadratic&step=150")
    own.focus()
    at_once, untuned = still.evaluate(f"(document.getElementById('own').click(), [{legend}, {drawn}])")
    assert "lr …" in at_once
    still.wait_for_function(f"() => !{legend}.includes('…')")
    rate = still.evaluate("playground.report().controlRate")
    assert f"lr {rate:.3g}" in still.evaluate(legend) and still.evaluate(drawn) != untuned
    assert own.evaluate("(one) => one === document.activeElement")
    # It is what an address that says so brings.
    tuned = still.evaluate(drawn)
    opened_at(still, "#rung=wirer")
    opened_at(still, "#rung=brain&world=quadratic&step=150&own=true")
    still.wait_for_function(f"(path) => {drawn} === path", arg=tuned)


def test_hands_are_answered_within_a_twentieth_of_a_second(still: Page) -> None:
    """In the time of a processor: lives, layout and paint of 20 answers, on the rung with most memories."""
    opened_at(still, "#rung=deeper&world=regression&own=true")
    session = still.context.new_cdp_session(still)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds() -> float:
        found = session.send("Performance.getMetrics")["metrics"]
        return sum(metric["value"] for metric in found if metric["name"] == "ThreadTime")

    before = seconds()
    still.evaluate(
        """async () => { const input = document.getElementById("set-retention");
          for (let i = 40; i < 60; i++) {
            input.value = i / 100;
            input.dispatchEvent(new Event("input"));
            await new Promise(requestAnimationFrame);
          } }"""
    )
    assert 0 < (seconds() - before) / 20 < SECONDS
