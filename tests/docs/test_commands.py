"""Commands that the pages show can be typed: verbs and options are those of the command line."""

import re

import pytest
import typer
from pages import ROOT

from nestlearn.cli.main import build_app

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
COMMAND = re.compile(r"(?:^|`)nestlearn ((?:[^`\n\\]|\\\n)+)", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")


def options() -> dict[str, set[str]]:
    """Verb -> its options, with those that every command has."""
    group = typer.main.get_command(build_app())
    every = {"--help"}
    return {
        name: every | {flag for each in command.params for flag in [*each.opts, *each.secondary_opts]}
        for name, command in group.commands.items()
    }


def commands(page: str) -> list[tuple[str, set[str]]]:
    """(verb, options) of every command in the text of a page; comments do not count."""
    found = []
    for line in COMMAND.findall(page):
        typed = re.sub(r"\s#.*", "", line)
        found.append((typed.split()[0], set(OPTION.findall(typed))))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_on_a_page_exist_with_their_options(page):
    known = options()
    wrong = []
    for verb, named in commands(page.read_text(encoding="utf-8")):
        if verb not in known and re.fullmatch(r"[a-z]+", verb):
            wrong.append(verb)
        wrong += sorted(named - known.get(verb, named))
    assert wrong == []


def test_the_options_that_the_page_of_compare_explains_are_its_own():
    page = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    explained = {flag for row in re.findall(r"^\| (`--.*?) \|", page, re.MULTILINE) for flag in OPTION.findall(row)}
    assert explained
    assert explained - options()["compare"] == set()


def test_a_command_is_read_with_its_options():
    page = "```bash\nnestlearn compare --tasks digits \\\n  --seeds 0..4  # --no\n```\nor `nestlearn report X --out`"
    assert commands(page) == [("compare", {"--tasks", "--seeds"}), ("report", {"--out"})]
