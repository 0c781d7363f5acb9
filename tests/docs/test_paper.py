"""docs/paper.md and experiments/README.md: whole, linked, and of one mind with the pages of the experiments."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from pages import ROOT, ids, resolve, rows, section, text, unbuilt

PAPER, INDEX = text("docs/paper.md"), text("experiments/README.md")
VERDICTS = ("reproduced", "direction only", "not shown", "contradicted", "not here")
EXPERIMENTS = sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("experiments/*/*/__init__.py"))
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
TITLES = ("Figures", "Tables", "Algorithm and definitions", "Claims of the text", "The article")
WHOLE = {
    "Figures": [f"Figure {number}" for number in range(1, 13)],
    "Tables": [f"Table {number}" for number in range(1, 7)],
    "Algorithm and definitions": ["Algorithm 1", *(f"Definition {number}" for number in range(1, 8))],
    "The article": [
        "2.1",
        "2.2",
        "2.3",
        "2.4",
        "3.1",
        "3.2",
        "3.3",
        "4.1",
        "4.2",
        "5",
        "5.1",
        "5.2",
        "5.3",
        "5.4",
        "6",
    ],
}
SAID = {
    "two minutes": "2",
    "about eight minutes": "8",
    "about ten minutes": "10",
    "about a quarter of an hour": "15",
    "about twenty minutes": "20",
    "about half an hour": "30",
    "about forty minutes": "40",
    "10.76 core-hours": "646",
}


def table(title: str) -> list[dict[str, str]]:
    """The rows of a section as dictionaries by column; all of one width."""
    head, *body = rows(section(PAPER, title))
    return [dict(zip(head, row, strict=True)) for row in body]


ALL = [row for title in TITLES for row in table(title)]


def name(row: dict[str, str]) -> str:
    return next(iter(row.values()))


def target(page: str, link: str) -> Path:
    return (ROOT / page).parent / link.partition("#")[0]


@cache
def functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("title", "wanted"), WHOLE.items())
def test_no_item_is_left_out(title, wanted):
    found = [re.match(r"(?:[A-Z][a-z]+ )?[\d.]+", name(row)) for row in table(title)]
    assert all(found)
    assert list(dict.fromkeys(each.group() for each in found)) == wanted


def test_every_row_has_a_verdict_of_the_list_and_what_it_rests_on():
    explained = [row[0] for row in rows(section(PAPER, "The paper and the article, item by item", "#"))]
    assert tuple(explained[1 : 1 + len(VERDICTS)]) == VERDICTS
    for row in ALL:
        assert row["verdict"] in VERDICTS, name(row)
        assert bool(row["code"] and row["test"]) == (row["verdict"] != "not here"), name(row)
        if row["verdict"] in ("direction only", "not shown", "contradicted"):
            assert row["command"] and row["minutes"] and row["ours"], f"{name(row)}: where was that asked?"


def test_code_exists_and_no_row_stands_for_an_equation_that_is_not_built():
    for row in ALL:
        code = re.findall(r"`(nestlearn(?:\.\w+)+)", row["code"])
        assert code or row["code"] in ("", "the same"), name(row)
        assert [each for each in code if resolve(each) is None] == [], name(row)
        if ids(row.get("ours", "")) & unbuilt():
            assert row["verdict"] == "not here", f"{name(row)} waits for what is not built"


def test_tests_exist():
    for row in ALL:
        for words, link in LINK.findall(row["test"]):
            file, called = target("docs/paper.md", link), link.partition("#")[2]
            assert file.stem == f"test_{words}" and (not called or called in functions(file)), link


def test_links_of_the_index_lead_somewhere():
    for words, link in LINK.findall(INDEX):
        assert target("experiments/README.md", link).exists(), words


def test_the_index_has_every_experiment_once_and_the_paper_all_that_ask_it():
    index = [f"experiments/{Path(link).parent}" for row in rows(INDEX)[1:] for _, link in LINK.findall(row[0])]
    assert sorted(index) == EXPERIMENTS
    ours = {"experiments/optimizers/nested", "experiments/optimizers/from_adamw"}
    assert [each for each in EXPERIMENTS if each not in PAPER and each not in ours] == []
    findings = text("docs/findings.md")
    assert [each for each in EXPERIMENTS if f"](../{each}/README.md" not in findings] == []


def test_minutes_are_those_of_the_experiments_own_page():
    index = {LINK.findall(row[0])[0][0]: row[3] for row in rows(INDEX)[1:]}
    for each in EXPERIMENTS:
        page = " ".join(text(f"{each}/README.md").split())
        said = {minutes for words, minutes in SAID.items() if words in page.partition("## Results")[0]}
        assert index[Path(each).name] in (said or {"?"}), f"{each}: {said}"
    for row in ALL:
        for command, _ in LINK.findall(row.get("command", "")):
            if command in index:
                assert row["minutes"] == index[command], f"{name(row)}: {command}"


def test_verdicts_of_the_index_are_those_of_the_paper():
    for row in rows(INDEX)[1:]:
        asked = {
            each["verdict"] for each in ALL for words, _ in LINK.findall(each.get("command", "")) if words in row[0]
        }
        if asked and row[4] not in asked:
            assert set(row[4].split("; ")) <= asked, row[0]


def test_the_log_of_what_did_not_work_is_dated_newest_first_and_says_what_is_behind_each_row():
    log = text("docs/negatives.md")
    days = [int(day) for day in re.findall(r"^## (\d+) November 2026$", log, re.MULTILINE)]
    assert days == sorted(days, reverse=True) and days
    for tried, came, behind in rows(log):
        assert tried and came and behind
    for words, link in LINK.findall(log):
        file, called = target("docs/negatives.md", link), words.strip("`")
        assert file.exists() and (not called.startswith("test_") or called in functions(file)), words
