"""What goes along with a release says one thing: the version, who may use it and how, and what is checked before it."""

import re
import tomllib
from datetime import date

import pytest
import yaml
from pages import section, text

from nestlearn import __version__

PYPROJECT = tomllib.loads(text("pyproject.toml"))
CITATION = yaml.safe_load(text("CITATION.cff"))
VERSIONS = re.findall(r"^## (\d+\.\d+\.\d+), (.+)$", text("CHANGELOG.md"), re.MULTILINE)
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "How to move"}


def test_the_changelog_begins_with_the_version():
    assert VERSIONS[0][0] == __version__
    numbers = [tuple(map(int, number.split("."))) for number, _ in VERSIONS]
    assert numbers == sorted(set(numbers), reverse=True)


def test_every_version_but_the_newest_has_its_date():
    dates = [when for _, when in VERSIONS if when != "not released yet"]
    assert len(dates) >= len(VERSIONS) - 1 and "not released yet" not in dict(VERSIONS[1:]).values()
    assert dates == sorted((date.fromisoformat(when).isoformat() for when in dates), reverse=True)


@pytest.mark.parametrize(("number", "when"), VERSIONS)
def test_what_changed_is_sorted_into_the_usual_kinds(number, when):
    kinds = re.findall(r"^### (.+)$", section(text("CHANGELOG.md"), f"{number}, {when}"), re.MULTILINE)
    assert set(kinds) <= KINDS and len(set(kinds)) == len(kinds)
    assert "How to move" in kinds or "Removed" not in kinds


def test_the_citation_is_complete_and_agrees_with_the_package():
    assert {"cff-version", "message", "title", "authors", "type", "abstract"} <= CITATION.keys()
    assert CITATION["cff-version"] == "1.2.0" and CITATION["version"] == __version__
    project = PYPROJECT["project"]
    assert (CITATION["title"], CITATION["license"]) == (project["name"], project["license"])
    assert CITATION["abstract"] == project["description"]
    assert sorted(CITATION["keywords"]) == sorted(project["keywords"])
    (paper,) = CITATION["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    arxiv = paper["identifiers"][0]["value"].removeprefix("arXiv:")
    assert f"https://arxiv.org/abs/{arxiv}" in text("README.md")


def test_before_a_commit_the_tools_of_the_environment_check_what_dev_test_checks():
    """Calls of `.venv` have the versions of dev/constraints.txt, which a revision written here would have to repeat."""
    config = yaml.safe_load(text(".pre-commit-config.yaml"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"} and not any(hook["pass_filenames"] for hook in hooks)
    called = re.findall(r"^\.venv/bin/python -m (?:ruff|mypy).*$", text("dev/test"), re.MULTILINE)
    assert [hook["entry"] for hook in hooks] == called
    pinned = {line.partition("==")[0] for line in text("dev/constraints.txt").splitlines()}
    assert {entry.split()[2] for entry in called} <= pinned


def test_contributing_leads_to_the_page_about_it_and_repeats_nothing():
    contributing, page = text("CONTRIBUTING.md"), text("docs/development.md")
    assert "(docs/development.md)" in contributing and len(contributing.splitlines()) < 12
    said = {line for line in contributing.splitlines() if line}
    assert not said & set(page.splitlines())
