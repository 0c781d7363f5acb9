"""Reading the pages of the documentation: text, code blocks, sections, tables, equation ids, and names of code."""

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from nestlearn.errors import MissingPackageError

__all__ = [
    "PAGES",
    "REMEDY",
    "ROOT",
    "SOURCE",
    "assert_same",
    "blocks",
    "code_line",
    "docstrings",
    "equation_headings",
    "ids",
    "page_name",
    "resolve",
    "rows",
    "section",
    "text",
    "unbuilt",
]

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "nestlearn"
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *(path for folder in ("docs", "examples", "benchmarks") for path in sorted((ROOT / folder).glob("*.md"))),
    *sorted(ROOT.glob("experiments/**/README.md")),
]
"""Every page that is read, as it lies in the checkout."""

REMEDY = "out of date, write it again: bash dev/docs"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

ID = re.compile(r"\b([MOSC])(\d+)(?:-\1(\d+))?\b")


def page_name(page: Path) -> str:
    """The path of a page in the checkout, for the names of tests."""
    return page.relative_to(ROOT).as_posix()


def text(name: str) -> str:
    """A page of the documentation, by its path in the checkout."""
    return (ROOT / name).read_text(encoding="utf-8")


def assert_same(found: str, kept: str, least: float = 0.0) -> None:
    """The same up to the last digit of every number, or so far apart: processors round sums differently."""
    assert NUMBER.sub("#", found) == NUMBER.sub("#", kept), REMEDY
    for one, two in zip(NUMBER.findall(found), NUMBER.findall(kept), strict=True):
        last = 10.0 ** -len(two.partition(".")[2]) if "." in two else 0.0
        assert abs(float(one) - float(two)) <= max(1.001 * last, least), f"{one} is not {two}: {REMEDY}"


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def section(page: str, title: str, level: str = "##") -> str:
    """The text below a heading, up to the next one of its level."""
    found = re.search(rf"^{level} {re.escape(title)}$(.*?)(?=^{level} |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, f"expected a heading {level} {title}"
    return found.group(1)


def rows(page: str) -> list[list[str]]:
    """The body rows of all tables, as cells; an escaped bar belongs to its cell."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if not set("".join(row)) <= {"-"}]


def ids(prose: str) -> set[str]:
    """The equation ids in a text, ranges such as M1-M3 spelt out."""
    return {
        f"{kind}{number}"
        for kind, first, last in ID.findall(prose)
        for number in range(int(first), int(last or first) + 1)
    }


def docstrings() -> Iterator[tuple[str, str]]:
    """(file, docstring) of every module, class and function of the package."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield file.relative_to(ROOT).as_posix(), ast.get_docstring(node) or ""


def equation_headings() -> list[str]:
    """The ids that have a section of their own in docs/equations.md."""
    return re.findall(r"^### ([MOSC]\d+)\. ", text("docs/equations.md"), re.MULTILINE)


def unbuilt() -> set[str]:
    """The ids that docs/equations.md calls not implemented."""
    return ids(section(text("docs/equations.md"), "Not implemented yet"))


def code_line(name: str) -> str:
    """What the section of an equation says after ``Code:``."""
    own = re.search(rf"^### {name}\. .*?(?=^##|\Z)", text("docs/equations.md"), re.MULTILINE | re.DOTALL)
    code = own and re.search(r"^Code: .*", own.group(0), re.MULTILINE | re.DOTALL)
    assert code, f"{name} has no line that starts with Code:"
    return code.group(0)


def resolve(dotted: str) -> object:
    """The object with this name, nl being the package; None if a module of it is missing. Of a module that needs a
    package which is not installed that it is there.
    """
    parts = dotted.split(".")
    parts[0] = "nestlearn"
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except MissingPackageError:
            return importlib.util.find_spec(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("nestlearn"):
                raise
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    return None
