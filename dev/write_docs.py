"""Writes the generated parts of the documentation, for ``dev/docs``.

docs/cli.md and docs/settings.md come from the command line and its settings, the table of folders in
docs/development.md from the import rule, the tables of docs/check.md from the checks and from what benchmarks/check
found, that of docs/from-adamw.md from the record of its experiment, the pictures of docs/tour.md from that page's code.
"""

from __future__ import annotations

import json
from pathlib import Path

from check_tables import SCORES, with_check_tables
from cli_page import cli_page
from folder_table import with_folder_table
from from_adamw_table import recorded, with_rates
from page_code import run_page
from settings_page import settings_page
from tour_pictures import tour_pictures

from nestlearn.cli.main import build_app

__all__ = ["main"]

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    """Write every generated file and say which ones changed; pictures that nothing draws any more are removed."""
    tour = DOCS / "tour.md"
    wanted = {DOCS / "cli.md": cli_page(build_app()), DOCS / "settings.md": settings_page()}
    development = DOCS / "development.md"
    wanted[development] = with_folder_table(development.read_text(encoding="utf-8"))
    check, scores = DOCS / "check.md", json.loads(SCORES.read_text(encoding="utf-8"))
    wanted[check] = with_check_tables(check.read_text(encoding="utf-8"), scores)
    rates = DOCS / "from-adamw.md"
    wanted[rates] = with_rates(rates.read_text(encoding="utf-8"), recorded())
    pictures = tour_pictures(run_page(tour.read_text(encoding="utf-8"), tour.name))
    wanted |= {DOCS / "images" / name: text for name, text in pictures.items()}
    for path in set(DOCS.glob("images/tour-*.svg")) - set(wanted):
        path.unlink()
        print(f"removed {path.relative_to(DOCS.parent)}")
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
