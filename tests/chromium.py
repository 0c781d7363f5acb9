"""A page in Chromium, without a window, that keeps account of what it asks for and complains of."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from patience import PATIENCE
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)

expect.set_options(timeout=1000 * PATIENCE)

# For tests that start a browser: where there is none they are skipped, but not in continuous integration.
marks = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"),
        reason="no chromium on the PATH (Debian, Ubuntu: apt install chromium)",
    ),
]


@contextmanager
def started_browser() -> Iterator[Browser]:
    assert CHROMIUM, "continuous integration must have chromium: .ci/run installs it"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS.split())
        yield started
        started.close()


class Opened:
    """A page, its requests, and its complaints: errors and warnings of the console, and of its scripts."""

    def __init__(
        self, browser: Browser, path: Path | str, width: int = 1280, height: int = 900, **options: Any
    ) -> None:
        fragment = options.pop("fragment", "")
        size: Any = {"width": width, "height": height}
        self.context = browser.new_context(viewport=size, accept_downloads=True, **options)
        self.context.set_default_timeout(1000 * PATIENCE)
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto((path if isinstance(path, str) else path.as_uri()) + fragment)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def unfold(self) -> None:
        self.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")

    def save(self, link: Any) -> tuple[str, bytes]:
        """Click on a link and return the name and the bytes of the file that it saves."""
        with self.page.expect_download() as waiting:
            link.click()
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def until(page: Page, true: str) -> None:
    """Wait for an expression; playwright's own way asks for ``eval``, which the page's policy forbids."""
    end = monotonic() + PATIENCE
    while monotonic() < end:
        if page.evaluate(true):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"{true}: it never was")
