"""The page in a notebook: what its model holds, and its module in a page that stands for the notebook's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Opened, marks, started_browser
from needed import needs
from pages import blocks, text
from playwright.sync_api import FrameLocator, expect
from served_runs import grow, made

from nestlearn.explore import Shelf
from nestlearn.explore.export import held
from nestlearn.explore.notebook import View, explore

needs("anywidget")

NOTEBOOK = """<!doctype html><title>a notebook</title><style>* { color: red; letter-spacing: 9px; }</style>
<button id="score">another's</button><div id="cell"></div>"""
MODEL = """async ([module, held]) => {
    window.model = {
        traits: { held, height: 700 }, heard: new Map(),
        get(name) { return this.traits[name]; },
        set(name, value) { this.traits[name] = value; this.heard.get(`change:${name}`)?.(); },
        on(name, call) { this.heard.set(name, call); },
        off(name, call) { if (this.heard.get(name) === call) this.heard.delete(name); },
    };
    const url = URL.createObjectURL(new Blob([module], { type: "text/javascript" }));
    const { default: widget } = await import(url);
    window.leave = widget.render({ model, el: document.getElementById("cell") });
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("runs") / "mine", 40)


@pytest.fixture(scope="module")
def view(folder: Path) -> View:
    return explore(folder, height=700)


def test_it_holds_what_a_file_would_and_what_came_since(view: View, tmp_path: Path) -> None:
    folder = made(tmp_path / "mine", 8, frozen=())
    view = explore(str(folder))
    seen = []
    view.observe(lambda change: seen.append(change["new"]["runs"][0]["latest"]), "held")  # type: ignore[attr-defined]
    assert view.held == held(Shelf([folder]))
    view.refresh()
    assert seen == []  # nothing is sent where nothing came
    grow(folder, 9, 12)
    view.refresh()
    assert seen == [12] and view.held == held(Shelf([folder]))


def test_the_notebook_is_told_its_traits_and_one_module(view: View) -> None:
    state = view.get_state()  # type: ignore[attr-defined]
    assert state["height"] == 700 and state["held"] == view.held
    assert state["_esm"].endswith("export default { render };\n") and len(state["_esm"]) < 280_000


def test_the_example_of_the_page_of_docs_runs(view: View, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "runs").symlink_to(folder.parent)
    monkeypatch.chdir(folder.parent)
    (example,) = blocks(text("docs/explore.md"), "py")
    names: dict[str, View] = {}
    exec(example, names)
    assert names["view"].held == view.held


@pytest.fixture(scope="module")
def opened(view: View) -> Iterator[Opened]:
    with started_browser() as browser, Opened(browser, "about:blank") as opened:
        opened.page.set_content(NOTEBOOK)
        opened.page.evaluate(MODEL, [view.get_state()["_esm"], view.held])  # type: ignore[attr-defined]
        yield opened
        assert [url for url in opened.requests if not re.match(r"data:|blob:|about:", url)] == []
        assert opened.complaints == []


@pytest.fixture
def frame(opened: Opened) -> FrameLocator:
    return opened.page.frame_locator("#cell iframe[title='nestlearn explore']")


class TestCell:
    pytestmark = marks

    def test_the_page_is_there_whole_and_neither_changes_the_other(self, opened: Opened, frame: FrameLocator) -> None:
        expect(frame.locator("#now")).to_have_text("step 40, training loss 0.025, open")
        expect(frame.locator("#nesting .card")).to_have_count(3)
        frame.locator("#score").focus()
        frame.locator("#score").press("PageDown")
        frame.locator("#score").press("Home")
        expect(frame.locator("#stepsays")).to_have_text("Step 1; step 10 is frozen")
        assert "MLP 2-4-2, l2, surprise 0.125" in frame.locator("#step").inner_text()
        assert frame.locator("#now").evaluate("one => getComputedStyle(one).letterSpacing") == "normal"
        button = opened.page.locator("button")
        assert button.evaluate("one => getComputedStyle(one).color") == "rgb(255, 0, 0)"
        box = opened.page.locator("iframe").bounding_box()
        assert box is not None and box["height"] == 700

    def test_a_chart_is_saved_from_the_cell(self, opened: Opened, frame: FrameLocator) -> None:
        name, data = opened.save(frame.get_by_role("button", name="Save losses as PNG"))
        assert name == "mine-losses.png" and data.startswith(b"\x89PNG")

    def test_what_the_model_holds_next_is_shown_and_the_step_stays(
        self, opened: Opened, frame: FrameLocator, view: View, folder: Path
    ) -> None:
        frame.locator("#score").press("Home")
        grow(folder, 41, 44)
        view.refresh()
        opened.page.evaluate("held => model.set('held', held)", view.held)
        expect(frame.locator("#now")).to_contain_text("step 44")
        expect(frame.locator("#score")).to_have_attribute("aria-valuemax", "44")
        expect(frame.locator("#score")).to_have_attribute("aria-valuenow", "1")

    def test_a_cell_that_is_gone_hears_nothing(self, opened: Opened) -> None:
        assert opened.page.evaluate("leave(), model.heard.size") == 0
