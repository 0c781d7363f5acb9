"""Writes the generated parts of the documentation, for ``dev/docs``.

README.md has its table and its picture from the recorded demo, what its blocks print from themselves. docs/cli.md and
docs/settings.md come from the command line and its settings, the table of folders in
docs/development.md from the import rule, docs/playground.html from the modules of nestlearn.play, the tables of
docs/check.md from the checks and from what benchmarks/check found, that of docs/hosts.md from what benchmarks/hosts
found, that of docs/from-adamw.md from the record of its experiment; what the blocks of docs/tour.md print, its pictures
and its notebook from the code of that page.
"""

from __future__ import annotations

import json
from pathlib import Path

from check_tables import SCORES, with_check_tables
from cli_page import cli_page
from demo_record import demo_picture, with_demo
from demo_record import recorded as recorded_demo
from folder_table import with_folder_table
from from_adamw_table import recorded, with_rates
from host_table import FOUND, with_host_table
from page_code import run_printing, with_output
from settings_page import settings_page
from tour_notebook import tour_notebook
from tour_pictures import tour_pictures

from nestlearn.cli.main import build_app
from nestlearn.play import page

__all__ = ["main"]

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    """Write every generated file and say which ones changed; pictures that nothing draws any more are removed."""
    tour = DOCS / "tour.md"
    wanted = {DOCS / "cli.md": cli_page(build_app()), DOCS / "settings.md": settings_page()}
    wanted[DOCS / "playground.html"] = page()
    development = DOCS / "development.md"
    wanted[development] = with_folder_table(development.read_text(encoding="utf-8"))
    check, scores = DOCS / "check.md", json.loads(SCORES.read_text(encoding="utf-8"))
    wanted[check] = with_check_tables(check.read_text(encoding="utf-8"), scores)
    hosts, found = DOCS / "hosts.md", json.loads(FOUND.read_text(encoding="utf-8"))
    wanted[hosts] = with_host_table(hosts.read_text(encoding="utf-8"), found)
    rates = DOCS / "from-adamw.md"
    wanted[rates] = with_rates(rates.read_text(encoding="utf-8"), recorded())
    told = tour.read_text(encoding="utf-8")
    computed, printed = run_printing(told, tour.name)
    front, demo = DOCS.parent / "README.md", recorded_demo()
    page_with_table = with_demo(front.read_text(encoding="utf-8"), demo)
    wanted[front] = with_output(page_with_table, run_printing(page_with_table, front.name)[1])
    wanted[DOCS / "images" / "compare.svg"] = demo_picture(demo)
    wanted[tour] = with_output(told, printed)
    wanted[DOCS / "tour.ipynb"] = tour_notebook(wanted[tour])
    pictures = tour_pictures(computed)
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
