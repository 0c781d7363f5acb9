"""docs/logging.md: its examples run, and its table has the names that are sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from needed import needs
from page_code import run_page
from pages import rows, section, text

from nestlearn.integrations import logging


@pytest.mark.slow
def test_the_examples_run_and_the_table_has_what_they_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("tensorboard")
    monkeypatch.chdir(tmp_path)
    page = text("docs/logging.md")
    seen = run_page(page, "logging.md")["seen"]
    assert list((tmp_path / "runs" / "mine").glob("events.out.tfevents.*"))
    assert {row[0].strip("`") for row in rows(section(page, "What the numbers mean"))[1:]} <= set(seen)


def test_every_tracker_is_named() -> None:
    page = text("docs/logging.md")
    assert all(f"`{name}" in page or f"={name}" in page for name in logging.PACKAGES)
