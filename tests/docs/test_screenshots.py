"""The pictures of pages: shown, small, and taken by a command that still finds its way through the pages."""

from pathlib import Path

import screenshots
from chromium import marks, started_browser
from pages import text
from served_runs import made

NAMES = ("explore.webp", "playground.webp")


def size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP with a colour profile: RFC 9649, section 2.7."""
    assert data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X"
    width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    return width, height


def test_both_are_shown_and_small() -> None:
    kept = [(screenshots.IMAGES / name).read_bytes() for name in NAMES]
    assert sum(map(len, kept)) < screenshots.MOST and {size(data) for data in kept} == {(1280, 800)}
    assert "(docs/images/explore.webp)" in text("README.md")
    assert "(images/playground.webp)" in text("docs/playground.md")


class TestTaken:
    pytestmark = marks

    def test_the_command_finds_its_way_through_both_pages(self, tmp_path: Path) -> None:
        run = made(tmp_path / "mine", 40)
        with started_browser() as browser:
            taken = [screenshots.explore(browser, run, tmp_path), screenshots.play(browser, tmp_path)]
        assert {size(data) for data in taken} == {(1280, 800)}
        assert all(len(data) > 20_000 for data in taken)  # no empty page
