"""Takes the pictures of pages that README.md and docs/playground.md show, for ``dev/screenshots``.

A short training is recorded, its page is written as `nestlearn explore --export` writes it, and Chromium, without a
window, opens that and the playground on light paper.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from chromium import Opened, started_browser
from playwright.sync_api import Browser, Page, expect

from nestlearn.explore import Shelf
from nestlearn.explore.export import write_page
from nestlearn.play import write_page as write_playground

__all__ = ["IMAGES", "MOST", "explore", "main", "play"]

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MOST = 150_000
"""Bytes of all of them: who clones the repository has to fetch them."""

TRAINING = "train --task speeches --optimizer DeepMomentum --steps 200 --set record=1 --quiet --out"
SIZE = {"width": 1280, "height": 800}
SMALLER = """async (data) => {
    const image = new Image();
    image.src = `data:image/png;base64,${data}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: image.width, height: image.height });
    canvas.getContext("2d", { alpha: false }).drawImage(image, 0, 0);
    return canvas.toDataURL("image/webp", 0.72).split(",")[1];
}"""


def main() -> None:
    """Take them all, and say which ones changed."""
    with TemporaryDirectory() as place, started_browser() as browser:
        run = Path(place) / "runs" / "speeches"
        subprocess.run([sys.executable, "-m", "nestlearn", *TRAINING.split(), str(run)], check=True, stdout=sys.stderr)
        taken = {"explore.webp": explore(browser, run, Path(place)), "playground.webp": play(browser, Path(place))}
    if (size := sum(map(len, taken.values()))) >= MOST:
        sys.exit(f"error: the pictures take {size:,} bytes, expected less than {MOST:,}: lower the quality in SMALLER")
    for name, data in taken.items():
        path = IMAGES / name
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
            print(f"wrote {path.relative_to(IMAGES.parents[1])}, {len(data):,} bytes")


def explore(browser: Browser, run: Path, place: Path) -> bytes:
    """A recorded training at the last step that is frozen."""
    with Opened(browser, write_page(Shelf([run]), place / "explore.html"), **SIZE) as opened:
        score = opened.page.locator("#score")
        score.focus()
        score.press("End")
        score.press("PageUp")
        expect(opened.page.locator("#step select")).to_be_visible()
        return _taken(opened.page, browser)


def play(browser: Browser, place: Path) -> bytes:
    """The playground in the middle of a path."""
    file = write_playground(place / "playground.html")
    with Opened(browser, file, fragment="#rung=deeper&step=60", **SIZE) as opened:
        return _taken(opened.page, browser)


def _taken(page: Page, browser: Browser) -> bytes:
    """What is seen, as WebP: half as large as PNG. An empty page makes it, as ours let no picture in."""
    data = base64.b64encode(page.screenshot(animations="disabled", caret="hide")).decode()
    empty = browser.new_page()
    try:
        return base64.b64decode(empty.evaluate(SMALLER, data))
    finally:
        empty.close()


if __name__ == "__main__":
    main()
