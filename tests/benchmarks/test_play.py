"""What the benchmark of the playground measures is there, and belongs to what it names."""

from collections.abc import Iterator

import pytest
from chromium import marks, started_browser
from playwright.sync_api import Browser

from benchmarks.play.answers import answers
from benchmarks.play.opening import opening
from nestlearn.play import write_page

pytestmark = marks


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(tmp_path_factory.mktemp("play") / "page.html").as_uri()


def test_the_slowest_slider_of_each_rung_is_named(browser: Browser, address: str) -> None:
    found = answers(browser, address, 1, ("wirer", "deeper"))
    by_rung = {case["rung"]: case for case in found["slowest_of_each_rung"]}
    slowest = max(by_rung.values(), key=lambda case: case["ms"])
    # Of three worlds, with and without the control's best rate: lr, noise, steepness; and two more behind a brain.
    assert found["what"] == f"the answer to a slider, the slowest of 48: rung {slowest['rung']}, {slowest['slider']}"
    assert set(by_rung) == {"wirer", "deeper"} and 0 < found["ms"] == slowest["ms"] <= found["worst_of_all_ms"]
    assert 0 < found["median_of_all_wall_ms"] <= found["worst_of_all_wall_ms"]


def test_something_is_seen_and_then_all(browser: Browser, address: str) -> None:
    found = opening(browser, address, 2)
    assert 0 < found["first_ms"] <= found["first_worst_ms"] and 0 < found["whole_ms"] <= found["whole_worst_ms"]
