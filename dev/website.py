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
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reference_pages import FOLDERS, anchors, reference_pages

__all__ = ["MENU", "Rewriter", "build", "main", "pages", "stage"]

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
        "docs/explore",
        "docs/check",
        "docs/distributed",
        "docs/gpu",
        "docs/own-text",
        "docs/huggingface",
        "docs/stacking",
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
    "html_static_path": ["_static"],
    "html_css_files": ["site.css"],
    "html_show_copyright": False,
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_use_index": False,
    "html_show_search_summary": False,  # a browser reads no other page from a disk
    "smartquotes": False,
    "highlight_language": "none",
    "language": "en",
}

# On a phone a wide table scrolls rather than have a word a line, and what stands beside a picture stands below it.
STYLE = """\
@media (max-width: 46em) {
  table.docutils :is(td, th) { min-width: 6em; }
  table.docutils:has(img), table.docutils:has(img) :is(thead, tbody, tr, th, td) { display: block; }
}
"""

# What a page is made of: blocks of code and headings stay as they are, links and names of code are looked at.
PARTS = re.compile(
    r"""^```.*?^```$ | ^\#[^\n]*$
    | (?P<link>(?P<picture>!?)\[(?P<words>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^)\s]+)\))
    | (?P<html>\b(?P<attribute>src|srcset|href)="(?P<place>[^"]+)")
    | (?P<code>(?P<ticks>``?)(?!`)(?P<name>[^`]+)(?P=ticks)(?!`))""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
NAME = re.compile(r"n(?:l|estlearn)(\.[\w.]*\w)(?:\(.*\))?", re.DOTALL)


def main() -> None:
    """Build into the folder that the command line names."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site")
    try:
        build(out)
    except ValueError as error:
        sys.exit(str(error))
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
    (out / "_sources").rmdir()
    for left in (".buildinfo", "objects.inv"):  # for other sites made by Sphinx
        (out / left).unlink(missing_ok=True)


def pages() -> list[Path]:
    """The Markdown files of the site, by their paths in the repository: some by name, the others as they are linked."""
    found = [Path("README.md"), Path("CHANGELOG.md"), Path("CONTRIBUTING.md"), Path("examples/README.md")]
    found += [path.relative_to(ROOT) for path in sorted((ROOT / "docs").glob("*.md"))]
    for page in found:  # it grows
        targets = [part["target"] or part["place"] for part in PARTS.finditer(_text(page))]
        linked = {_place(page, target) for target in targets if target}
        found += sorted(path for path in linked if path and path.suffix == ".md" and path not in found)
    return found


def stage(folder: Path) -> list[Path]:
    """Lay out the sources of the site in a folder; returns the files that are to lie beside the pages."""
    sources = {page.as_posix(): _text(page) for page in pages()}
    rewriter = Rewriter(set(map(Path, sources)), anchors())
    staged = {name: rewriter.page(Path(name), text) for name, text in {**sources, **reference_pages()}.items()}
    staged["index.md"] = staged.pop("README.md")
    for doc, below in {"index": MENU, **{doc: {"": entries} for doc, entries in BELOW.items()}}.items():
        staged[f"{doc}.md"] += "".join(_menu(doc, caption, entries) for caption, entries in below.items())
    staged["_static/site.css"] = STYLE
    for name, text in staged.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for file in rewriter.shown:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, folder / file)
    return sorted(rewriter.files)


class Rewriter:
    """Turns links and names of code into those of the site.

    Attributes:
        known: the pages. names: dotted name -> its place in the reference.
        shown: pictures of Markdown, which Sphinx copies. files: what else is linked to, which lies where it did.
    """

    def __init__(self, known: set[Path], names: dict[str, str]) -> None:
        self.known, self.names = known, names
        self.shown: set[Path] = set()
        self.files: set[Path] = set()

    def page(self, page: Path, text: str) -> str:
        def part(found: re.Match[str]) -> str:
            if found["code"]:
                return self._code(page, found)
            if page not in self.known or not (found["link"] or found["html"]):
                return found[0]
            place = _place(page, found["target"] or found["place"])
            if place is None:
                return found[0]
            return self._html(found, place) if found["html"] else self._link(found, place)

        return PARTS.sub(part, text)

    def _code(self, page: Path, found: re.Match[str]) -> str:
        name = NAME.fullmatch(found["name"])
        place = self.names.get("nestlearn" + name[1]) if name else None
        return f"[{found[0]}]({'../' * (len(page.parts) - 1)}{place})" if place else found[0]

    def _link(self, found: re.Match[str], place: Path) -> str:
        words, target = found["words"], found["target"]
        if place in self.known:
            words = re.sub(r"^(?:docs/)?(?!README)([\w-]+)\.md$", r"\1", words)
            return f"[{words}]({target.replace('README.md', 'index.md') if place == Path('README.md') else target})"
        if found["picture"]:
            self.shown.add(place)
            return found[0]
        self.files.add(place)
        file = target.partition("#")[0]  # only a page has anchors
        return f"[{words}](file-of:{file.replace(place.name, _apart(Path(place.name)))})"

    def _html(self, found: re.Match[str], place: Path) -> str:
        """What is written as HTML stays it: only the names of pages change."""
        if place not in self.known:
            self.files.add(place)
            return found[0].replace(place.name, _apart(Path(place.name)))
        return found[0].replace(place.name, "index.html" if place == Path("README.md") else f"{place.stem}.html")


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


def _text(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
