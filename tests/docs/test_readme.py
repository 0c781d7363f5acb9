"""README.md: its blocks run and print what stands below them, and its table, sentences and picture are of the recorded
demo.
"""

import re

import pytest
from demo_record import demo_picture, recorded, with_demo
from page_code import run_printing, said
from pages import REMEDY, assert_same, rows, section, text

from nestlearn import __version__

README = text("README.md")


def test_what_blocks_print_stands_below_them():
    printed = run_printing(README, "README.md")[1]
    assert printed[0]
    for found, kept in zip(printed, said(README), strict=True):
        assert_same(found, kept, least=1.0)  # of 100


def test_the_table_and_the_picture_are_of_the_recorded_demo():
    assert with_demo(README, recorded()) == README, REMEDY
    assert text("docs/images/compare.svg") == demo_picture(recorded()), REMEDY
    with pytest.raises(ValueError, match="expected a place for the table"):
        with_demo("# A page without one\n", recorded())


def test_the_record_is_of_the_whole_demo_and_its_costs_are_ratios_to_adamw():
    found = recorded()
    assert found.results.preset == "demo" and found.environment["reused_runs"] == 0
    by_name = {row[0].strip("`"): row for row in rows(section(README, "How to choose"))[1:]}
    speeches = {row.name: row for row in found.results.tasks["speeches"]}
    assert set(by_name) == {name for name, row in speeches.items() if not row.control}
    assert by_name["AdamW"][4:] == ["1.0", "1.0"]
    for name, cells in by_name.items():
        assert len(speeches[name].runs) == 5
        assert float(cells[1]) == pytest.approx(sum(speeches[name].test["loss"].values) / 5, abs=6e-4)
        assert float(cells[4]) == pytest.approx(speeches[name].step_ms / speeches["AdamW"].step_ms, abs=0.06)
        assert float(cells[5]) == pytest.approx(speeches[name].state_bytes / speeches["AdamW"].state_bytes, abs=0.06)


def test_what_is_said_about_controls_and_muon_is_in_the_record():
    """The sentences below the picture of the demo."""
    speeches = {row.name: row for row in recorded().results.tasks["speeches"]}
    for name in ("Nested", "LayerMomentum"):
        for found in (speeches[name].against_control, speeches[name].against_muon):
            assert found.mean < 0 and found.significant
    assert not speeches["DeepMomentum"].against_control.significant
    last = recorded().results.tasks["digits"][-1]
    assert last.name == "LayerMomentum" and any("far above" in warning for warning in last.warnings)


def test_the_version_and_its_state_are_said_at_the_top():
    assert f"\nVersion {__version__} (" in README.partition("\n## ")[0]
    unreleased = f"## {__version__}, not released yet" in text("CHANGELOG.md")
    assert ("is not released yet" in section(README, "Install")) == unreleased


def test_the_nesting_picture_stands_at_the_top_and_the_rest_in_the_order_of_a_first_look():
    top, *titles = re.split(r"^## (.+)$", README, flags=re.MULTILINE)
    assert "(docs/images/tour-nesting-figure-1.svg)" in top
    first = ["For whom", "A first model", "How to choose", "Install", "Two commands"]
    assert titles[: 2 * len(first) : 2] == first
