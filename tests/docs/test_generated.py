"""What `bash dev/docs` writes is what the code says today: commands, settings, table of folders, checks.

What it writes of the tour is in test_tour.py.
"""

import json
from typing import Annotated

import pytest
import typer
from check_tables import SCORES, with_check_tables
from cli_page import cli_page
from folder_table import with_folder_table
from from_adamw_table import recorded, with_rates
from pages import rows, section, text
from settings_page import keys, settings_page

import nestlearn as nl
from nestlearn.check import CHECKS
from nestlearn.cli.main import build_app
from nestlearn.comparison import CompareSettings
from nestlearn.play import page
from nestlearn.training import TrainSettings, merge

REMEDY = "out of date, write it again: bash dev/docs"


# ------------------------------------------------------------------------------------------------------- command line


def test_the_page_of_the_command_line_is_up_to_date():
    assert text("docs/cli.md") == cli_page(build_app()), REMEDY


def test_the_playground_is_up_to_date():
    assert text("docs/playground.html") == page(), REMEDY


def small_app() -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def paint(
        wall: Annotated[str, typer.Argument(help="Which wall.")],
        coats: Annotated[int, typer.Option(help="How many | coats.")] = 2,
        colour: Annotated[str | None, typer.Option("--colour", "-c", help="A colour. [default: white]")] = None,
        quick: Annotated[bool, typer.Option("--quick", help="Do not wait.")] = False,
        also: Annotated[list[str] | None, typer.Option(help="More walls.")] = None,
        secret: Annotated[int, typer.Option(hidden=True)] = 1,
    ) -> None:
        """Paint a wall,
        all of it."""

    @app.command()
    def leave() -> None:
        """Go home."""

    return app


def test_arguments_options_and_defaults_are_listed_but_nothing_hidden():
    paint = section(cli_page(small_app()), "paint")
    assert "Paint a wall, all of it." in paint
    assert "nestlearn paint WALL [options]" in paint
    assert rows(paint)[1] == ["`WALL`", "str", "required", "Which wall."]
    assert rows(paint)[3:] == [
        ["`--coats`", "int", "`2`", r"How many \| coats."],
        ["`--colour`, `-c`", "str", "white", "A colour."],
        ["`--quick`", "", "", "Do not wait."],
        ["`--also`", "list[str], repeatable", "", "More walls."],
    ]


def test_the_width_of_the_terminal_has_no_part_in_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    narrow = cli_page(small_app())
    monkeypatch.setenv("COLUMNS", "300")
    assert cli_page(small_app()) == narrow


# ----------------------------------------------------------------------------------------------------------- settings


def test_the_page_of_the_settings_is_up_to_date():
    assert text("docs/settings.md") == settings_page(), REMEDY


@pytest.mark.parametrize("model", [CompareSettings, TrainSettings])
def test_every_setting_says_what_it_is_and_can_be_assigned(model):
    found = dict(keys(model))
    assert [key for key, field in found.items() if not field.description] == []
    with pytest.raises(ValueError, match="unknown"):
        merge(model(), "no_such_setting=1")
    for key in found:
        # A value that fits nowhere: the complaint must be about it, not about the key.
        with pytest.raises(ValueError, match=r"^(?!unknown)") as complaint:
            merge(model(), f"{key}={{wrong: [1.5]}}")
        assert key.partition(".")[0] in str(complaint.value)


# ------------------------------------------------------------------------------------------------------------ folders


def test_the_table_of_folders_is_the_import_rule():
    page = text("docs/development.md")
    assert page == with_folder_table(page), REMEDY


def test_a_table_of_folders_that_is_out_of_date_is_written_again():
    page = text("docs/development.md")
    assert with_folder_table(page.replace("| `ops` | `memory` |", "| `ops` | `optim` |")) == page
    with pytest.raises(ValueError, match="expected a place for the table"):
        with_folder_table("# A page without one\n")


# ------------------------------------------------------------------------------------------------------------- checks


def test_the_tables_of_checks_are_what_the_code_asserts_and_what_was_found():
    page = text("docs/check.md")
    assert page == with_check_tables(page, json.loads(SCORES.read_text(encoding="utf-8"))), REMEDY
    with pytest.raises(ValueError, match="expected a place for the table"):
        with_check_tables("# A page without one\n", {})


def test_every_optimizer_of_ours_has_its_score_and_passes_all():
    scores = json.loads(SCORES.read_text(encoding="utf-8"))
    ours = {label.partition(" ")[2]: found for label, found in scores.items() if label.startswith("nestlearn ")}
    assert sorted(ours) == sorted(set(nl.optim.__all__) - {"Optimizer", "tables"})
    assert {label: found["failed"] for label, found in ours.items() if found["failed"]} == {}
    for found in scores.values():
        assert {*found["failed"], *found["not applicable"]} <= set(CHECKS)
        assert found["passed"] + len(found["failed"]) + len(found["not applicable"]) == len(CHECKS)


# -------------------------------------------------------------------------------------------------------------- rates


def test_the_table_of_rates_is_what_was_measured_beside_adamw():
    page = text("docs/from-adamw.md")
    assert page == with_rates(page, recorded()), REMEDY
    with pytest.raises(ValueError, match="expected a place for the table"):
        with_rates("# A page without one\n", recorded())
