"""Makes the pages of the repository a site, for ``dev/site``: Sphinx, MyST and the theme Furo, warnings as errors.

The sources stay what GitHub shows. A copy of them is laid out as in the repository, with three changes: README.md is
the front page, names of code lead to the reference, which is made of the docstrings, and what is no page (a test, the
notebook, the playground) is linked as a file beside the pages. Sphinx then refuses a link or an anchor that leads
nowhere and a page that the menu does not have.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reference_pages import FOLDERS, anchors, reference_pages

__all__ = ["MENU", "build", "main", "pages", "stage"]

ROOT = Path(__file__).resolve().parents[1]

# What the menu shows: the three doors, then what is looked up, then the project.
MENU = {
    "Train better": [
        "docs/from-adamw",
        "docs/optimizers",
        "docs/hosts",
        "docs/train",
        "docs/compare",
        "docs/report",
        "docs/logging",
        "docs/check",
        "docs/distributed",
        "docs/gpu",
        "docs/own-text",
        "examples/README",
    ],
    "Reproduce the paper": [
        "docs/paper",
        "docs/equations",
        "docs/findings",
        "docs/negatives",
        "experiments/README",
        "benchmarks/README",
    ],
    "Understand": [
        "docs/tour",
        "docs/playground",
        "docs/rules",
        "docs/describe",
        "docs/extending",
        "docs/sequence",
        "docs/layers",
        "docs/models",
        "docs/design",
    ],
    "Reference": ["reference/index", "docs/cli", "docs/settings", "docs/tasks", "docs/data"],
    "The project": ["CHANGELOG", "docs/development", "CONTRIBUTING"],
}
BELOW = {
    "reference/index": ["reference/nestlearn", *(f"reference/{name}" for name in FOLDERS)],
    "experiments/README": ["experiments/optimizers/*/README", "experiments/sequence/*/README"],
}

SETTINGS: dict[str, Any] = {
    "project": "nestlearn",
    "root_doc": "index",
    "extensions": ["myst_parser"],
    "source_suffix": {".md": "markdown"},
    "myst_heading_anchors": 6,
    # A file that is no page: the link is left as it is, and the file is put where it leads.
    "myst_url_schemes": {
        "https": None,
        "http": None,
        "file-of": {"url": "{{path}}"},
    },
    "html_theme": "furo",
    "html_title": "nestlearn",
    "html_show_copyright": False,
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_use_index": False,
    "html_show_search_summary": False,  # a browser reads no other page from a disk
    "smartquotes": False,
    "highlight_language": "none",
    "language": "en",
}

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#.*$", re.MULTILINE)
NAME = re.compile(r"(?<!`)(?P<ticks>``?)n(?:l|estlearn)(?P<name>\.[\w.]*\w)(?:\([^`]*\))?(?P=ticks)(?!`)")


def main() -> None:
    """Build into the folder that the command line names."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site")
    build(out)
    print(f"wrote {out / 'index.html'}")


def build(out: Path) -> None:
    """Write the site into a folder, in the place of the one that was there.

    Raises:
        ValueError: the folder holds something else, or Sphinx warned; the message has what it said, by page and line.
    """
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    if out.exists() and any(out.iterdir()) and not (out / "searchindex.js").is_file():
        raise ValueError(f"expected a new folder or an earlier site, and {out} holds something else: name another one")
    shutil.rmtree(out, ignore_errors=True)
    with TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        files = stage(source)
        said = StringIO()
        with docutils_namespace():
            site = Sphinx(source, None, out, Path(folder) / "trees", "html", SETTINGS, status=None, warning=said)
            site.build()
    if said.getvalue().strip():
        raise ValueError(f"expected a site without a warning:\n{said.getvalue().replace(f'{source}/', '')}")
    for file in files:
        place = out / _apart(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, place)
    for left in (".buildinfo", "objects.inv"):  # for other sites made by Sphinx
        (out / left).unlink(missing_ok=True)


def pages() -> list[Path]:
    """The Markdown files of the site, by their paths in the repository: some by name, the others as they are linked."""
    found = [Path("README.md"), Path("CHANGELOG.md"), Path("CONTRIBUTING.md"), Path("examples/README.md")]
    found += [path.relative_to(ROOT) for path in sorted((ROOT / "docs").glob("*.md"))]
    for page in found:  # it grows
        linked = {_place(page, target) for _, _, target in LINK.findall(FENCE.sub("", _text(page)))}
        found += sorted(path for path in linked if path and path.suffix == ".md" and path not in found)
    return found


def stage(folder: Path) -> list[Path]:
    """Lay out the sources of the site in a folder; returns the other files that its pages link to."""
    known, names, files = set(pages()), anchors(), set()
    staged: dict[str, str] = {}
    for name, text in {**{page.as_posix(): _text(page) for page in known}, **reference_pages()}.items():
        page, parts = Path(name), []
        for is_code, part in _around(FENCE, text):
            for is_link, piece in [(False, part)] if is_code else _around(LINK, part):
                plain = is_code or is_link
                piece = _link(piece, page, known, files) if is_link and page in known else piece
                parts.append(piece if plain else _with_names(piece, page, names))
        staged["index.md" if name == "README.md" else name] = "".join(parts)
    for doc, below in {"index": MENU, **{doc: {"": entries} for doc, entries in BELOW.items()}}.items():
        staged[f"{doc}.md"] += "".join(_menu(doc, caption, entries) for caption, entries in below.items())
    for name, text in staged.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    pictures = {file for file in files if file.suffix in (".svg", ".png")}
    for file in pictures:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, folder / file)
    return sorted(files - pictures)


def _link(text: str, page: Path, known: set[Path], files: set[Path]) -> str:
    """A link as the site has it: to a page, or to a file beside the pages, which is added to the files."""
    picture, words, target = LINK.fullmatch(text).groups()  # type: ignore[union-attr]
    place = _place(page, target)
    if place is None:
        return text
    if place in known:
        words = re.sub(r"^(?:docs/)?(?!README)([\w-]+)\.md$", r"\1", words)
        return f"[{words}]({target.replace('README.md', 'index.md') if place.name == str(place) else target})"
    files.add(place)
    file = target.partition("#")[0]  # only a page has anchors
    return text if picture else f"[{words}](file-of:{file.replace(place.name, _apart(Path(place.name)))})"


def _with_names(text: str, page: Path, names: dict[str, str]) -> str:
    """Text in which names of code lead to the reference; headings keep their anchors, and the menu its words."""

    def name(found: re.Match[str]) -> str:
        place = names.get("nestlearn" + found["name"])
        return f"[{found[0]}]({'../' * (len(page.parts) - 1)}{place})" if place else found[0]

    return "".join(part if kind else NAME.sub(name, part) for kind, part in _around(HEADING, text))


def _place(page: Path, target: str) -> Path | None:
    """The file that a link of a page leads to, by its path in the repository; None within the page and elsewhere."""
    file = target.partition("#")[0]
    if not file or "://" in file or file.startswith("mailto:"):
        return None
    return (ROOT / page.parent / file).resolve().relative_to(ROOT)


def _apart(file: Path) -> str:
    """Where a file lies on the site: a page of HTML apart from the page about it, which has the same name."""
    return f"{file.with_suffix('')}/index.html" if file.suffix == ".html" else str(file)


def _menu(doc: str, caption: str, entries: list[str]) -> str:
    up = "../" * doc.count("/")
    lines = [f"{up}{entry}" for entry in entries]
    options = [":hidden:", *([f":caption: {caption}"] if caption else []), *([":glob:"] if "*" in str(entries) else [])]
    return "\n".join(["", "```{toctree}", *options, "", *lines, "```", ""])


def _around(pattern: re.Pattern[str], text: str) -> Iterator[tuple[bool, str]]:
    """The text in pieces, with whether each is one of the pattern."""
    end = 0
    for found in pattern.finditer(text):
        yield False, text[end : found.start()]
        yield True, found[0]
        end = found.end()
    yield False, text[end:]


def _text(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
