"""The site that `bash dev/site` makes: it builds without a warning, and nothing on it leads nowhere or elsewhere."""

import importlib
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import website
from architecture import MAY_IMPORT
from needed import needs
from pages import ROOT, blocks
from reference_pages import FOLDERS, anchors, markdown, reference_page

import nestlearn as nl

SPHINX = ("sphinx", "furo", "myst_parser")


class Parsed(HTMLParser):
    """What a page of HTML can be linked at, what it links to, and what a browser loads to show it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.places, self.links, self.loads, self.headings = set(), [], [], 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.places |= {given["id"]} if "id" in given else set()
        self.headings += tag == "h1"
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        self.loads += [given[name] for name in ("src", "data", "poster") if given.get(name)]
        if tag == "link" and given.get("rel") not in ("search", "next", "prev", "index"):
            self.loads.append(given["href"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Check CHANGES for Sphinx API")  # MyST and Furo call what Sphinx will remove
def test_the_site_is_whole_and_needs_no_network(tmp_path):
    needs(*SPHINX, remedy="bash dev/test")
    out = tmp_path / "site"
    website.build(out)  # every warning of Sphinx is an error
    pages = {path: Parsed(path) for path in out.rglob("*.html")}
    made = {path.relative_to(out).with_suffix("").as_posix() for path in pages}
    assert {page.with_suffix("").as_posix() for page in website.pages()} - {"README"} <= made
    assert {f"reference/{name}" for name in FOLDERS} <= made
    lost = []
    for path, page in pages.items():
        assert [load for load in page.loads if re.match(r"(\w+:)?//", load)] == [], path
        for target in [*page.links, *page.loads]:
            file, _, place = unquote(target).partition("#")
            if re.match(r"(https?|mailto|data):", target):
                continue
            found = (path.parent / file.partition("?")[0]).resolve() if file else path
            if not found.is_file() or (place and found in pages and place not in pages[found].places):
                lost.append(f"{path.relative_to(out)}: {target}")
    assert lost == []
    for sheet in [*out.rglob("*.css"), *out.rglob("*.js")]:
        assert not re.search(r"url\(['\"]?(https?:)?//|@import|fonts\.g", sheet.read_text(encoding="utf-8")), sheet
    assert pages[out / "docs" / "playground.html"].headings == 1  # the page about it, and the playground beside it
    assert (out / "docs" / "playground" / "index.html").read_bytes() == (ROOT / "docs" / "playground.html").read_bytes()
    named = (out / "docs" / "paper.html").read_text(encoding="utf-8")
    assert 'href="../reference/layers.html#memorylayer"' in named


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Check CHANGES for Sphinx API")
def test_a_page_outside_the_menu_and_links_that_lead_nowhere_are_refused(tmp_path, monkeypatch):
    needs(*SPHINX, remedy="bash dev/test")
    (tmp_path / "README.md").write_text("# Home\n\n[one](one.md#no-such-heading), [two](two.md)\n")
    (tmp_path / "one.md").write_text("# One\n\n[home](README.md#home), [here](#nowhere)\n")
    (tmp_path / "two.md").write_text("# Two\n")
    monkeypatch.setattr(website, "ROOT", tmp_path)
    monkeypatch.setattr(website, "MENU", {"All": ["one"]})
    monkeypatch.setattr(website, "BELOW", {})
    monkeypatch.setattr(website, "pages", lambda: [Path(name) for name in ("README.md", "one.md", "two.md")])
    monkeypatch.setattr(website, "reference_pages", dict)
    with pytest.raises(ValueError, match="expected a new folder or an earlier site"):
        website.build(tmp_path)
    with pytest.raises(ValueError, match="expected a site without a warning") as complaint:
        website.build(tmp_path / "site")
    said = str(complaint.value)
    assert len(re.findall("WARNING", said)) == 3
    assert "no-such-heading" in said and "nowhere" in said and "two.md" in said and "toctree" in said


def test_links_and_names_are_turned_into_those_of_the_site():
    rewriter = website.Rewriter(
        {Path("README.md"), Path("docs/a.md")}, {"nestlearn.optim.Muon": "reference/optim.md#muon"}
    )
    before = """# `nl.optim.Muon` [x](../LICENSE)
`nl.optim.Muon(lr=0.1)`, ``nl.optim.Muon``, `nl.optim.None`, `[x](../LICENSE)`, [`nl.optim.Muon`](../README.md#top),
[a.md](a.md#b), ![p](images/p.svg), [p](images/p.svg), [l](../LICENSE), [t](../tests/t.py#test_t), [w](https://w.org/a.md)
<a href="../README.md#top"><img src="images/q.svg"></a> [p](p.html)
```
[x](../LICENSE) `nl.optim.Muon`
```
"""
    name = "../reference/optim.md#muon"
    after = f"""# `nl.optim.Muon` [x](../LICENSE)
[`nl.optim.Muon(lr=0.1)`]({name}), [``nl.optim.Muon``]({name}), `nl.optim.None`, `[x](../LICENSE)`, [`nl.optim.Muon`](../index.md#top),
[a](a.md#b), ![p](images/p.svg), [p](file-of:images/p.svg), [l](file-of:../LICENSE), [t](file-of:../tests/t.py), [w](https://w.org/a.md)
<a href="../index.html#top"><img src="images/q.svg"></a> [p](file-of:p/index.html)
```
[x](../LICENSE) `nl.optim.Muon`
```
"""  # noqa: E501
    assert rewriter.page(Path("docs/a.md"), before) == after
    assert rewriter.shown == {Path("docs/images/p.svg")}
    beside = ("LICENSE", "docs/images/p.svg", "docs/images/q.svg", "docs/p.html", "tests/t.py")
    assert rewriter.files == set(map(Path, beside))


def test_names_of_code_lead_to_the_reference_and_files_are_kept_apart_from_pages(tmp_path):
    files = website.stage(tmp_path)
    rules = (tmp_path / "docs" / "rules.md").read_text(encoding="utf-8")
    assert "[`nl.rules`](../reference/rules.md)" in rules
    assert not re.search(r"^#.*\]\(", rules, re.MULTILINE)
    tour = (tmp_path / "docs" / "tour.md").read_text(encoding="utf-8")
    assert "(file-of:tour.ipynb)" in tour and Path("docs/tour.ipynb") in files
    source = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    for language in ("python", "text"):
        assert blocks(tour, language) == blocks(source, language)
    front = (tmp_path / "index.md").read_text(encoding="utf-8")
    assert front.count("```{toctree}") == len(website.MENU)


# ---------------------------------------------------------------------------------------------------------- docstrings


def test_a_docstring_is_read_as_markdown():
    docstring = """Adds a_b to *all* of w[*B].

    w <- w + a_b

First ``w_0``, then the rest. <x> is
- no tag

Args:
    a_b: one
        of them, ``a_b``.
    **more: others.

Returns:
    The sum.

Raises:
    ValueError: it is * too large.

Example:
    >>> 1 + 1
    2

    Twice that is four.

The end."""
    assert (
        markdown(docstring)
        == r"""Adds a\_b to *all* of w\[\*B\].

    w <- w + a_b

First ``w_0``, then the rest. \<x> is
- no tag

- **a\_b**: one of them, ``a_b``.
- **\*\*more**: others.

**Returns**

The sum.

**Raises**

- `ValueError`: it is \* too large.

```pycon
>>> 1 + 1
2
```

Twice that is four.

The end.
"""
    )


def test_signatures_are_those_of_the_source():
    page = reference_page(nl.optim)
    assert "## Muon\n\n```python\nMuon(\n    params: Params,\n    lr: float | Tensor = 0.01,\n    *,\n" in page
    assert "\n    **common: Unpack[Common],\n)\n```" in page
    assert "tables(model: nn.Module, *, output: " in " ".join(page.split())
    fields = reference_page(nl.memory)
    assert "AssociativeMemory(model: Model, objective: Objective, rule: Rule, period: int = 1)" in fields
    assert " at 0x" not in fields


def test_every_public_name_has_its_place():
    assert set(MAY_IMPORT) - {name.partition(".")[0] for name in FOLDERS} == {"cli"}  # a new folder has its page
    places, without = anchors(), []
    for folder in FOLDERS:
        module = importlib.import_module(f"nestlearn.{folder}")
        lost = [name for name in module.__all__ if f"{module.__name__}.{name}" not in places]
        without += [name for name in lost if callable(getattr(module, name))]
    assert without == ["Part", "Send"]  # names of types, which have no docstring
    assert places["nestlearn.optim.Muon"] == "reference/optim.md#muon"
    assert places["nestlearn.check.Check"] != places["nestlearn.check.check"]
