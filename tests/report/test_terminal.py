"""The table in terminals of any width."""

import io

import pytest
from rich.console import Console

from nestlearn.report import print_tables
from nestlearn.report.findings import headline
from nestlearn.training import Results


def printed(results: Results, width: int, terminal: bool) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=terminal, color_system=None)
    print_tables(results, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 300])
def test_the_table_fits_and_keeps_the_essentials(results: Results, width: int) -> None:
    text = printed(results, width, terminal=True)
    assert max(map(len, text.splitlines())) <= width
    assert all(name in text for name in ("Muon", "AdamW", "M3", "diverged", "test", "vs control"))
    assert "…" not in text and ("opt ms" in text) == (width == 300)


def test_results_come_first_settings_last_and_a_sentence_below(results: Results) -> None:
    lines = printed(results, 300, terminal=True).splitlines()
    headings = lines[3].split()
    assert headings[:4] == ["optimizer", "test", "vs", "control"] and headings[-2:] == ["inner", "lr"]
    assert headings.index("ms/step") < headings.index("validation") < headings.index("retention")
    assert headline(results.tasks["digits"], results.baseline) in lines


def test_a_wider_terminal_shows_more(results: Results) -> None:
    headings = [printed(results, width, terminal=True).splitlines()[3].split() for width in (60, 80, 120, 200, 300)]
    assert [len(line) for line in headings] == sorted({len(line) for line in headings})


def test_a_pipe_gets_every_column(results: Results) -> None:
    assert printed(results, 60, terminal=False).splitlines()[3] == printed(results, 300, terminal=True).splitlines()[3]
