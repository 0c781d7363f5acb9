"""Links between pages lead somewhere: to a file in the checkout, a heading, a picture with words, a test of that name.

Links out of the checkout are looked at and not followed, so that the tests need no network.
"""

import ast
import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pages import PAGES, ROOT, page_name

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)]*)\)")
BLOCK = re.compile(r"^```.*?^```$|``[^`]+``|`[^`\n]+`", re.MULTILINE | re.DOTALL)
HTML = re.compile(r'<img\b(?![^>]*\balt="[^"]+)|\b(?:src|srcset|href)="([^"]*)"')
APART = re.compile(r"\[[^\]\[]*\]\[[^\]]*\]")


def anchors(page: str) -> set[str]:
    """The places of a page, as GitHub makes them of its headings: lower case, no punctuation, hyphens for spaces, and a
    number for the second of a name."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.*)$", re.sub(r"^```.*?^```$", "", page, flags=re.M | re.S), re.MULTILINE):
        words = LINK.sub(r"\2", heading).lower()
        slug, number = re.sub(r"[^\w\- ]", "", words).replace(" ", "-"), 0
        while (place := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(place)
    return found


@cache
def places(file: Path) -> set[str]:
    """What a link may name after the hash: a heading of a page, a function of a program."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        kinds = ast.FunctionDef | ast.ClassDef
        return {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)}
    return anchors(text)


def wrong(page: Path, text: str) -> list[str]:
    """Every link of a page that is not right, with what is the matter."""
    found = []
    prose = BLOCK.sub("code", text)
    written = [("!" if not target else "", "", target) for target in HTML.findall(prose)]
    for picture, words, target in [*LINK.findall(prose), *written]:
        if picture and not words.strip():
            found.append(f"{target}: a picture says in words what it shows")
            continue
        if "://" in target or target.startswith("mailto:"):
            address = urlsplit(target)
            if address.scheme != "https" or "." not in address.netloc or re.search(r"[\s<>]", target):
                found.append(f"{target}: expected an address that begins with https://")
            continue
        file, _, place = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.is_file() or not path.is_relative_to(ROOT):
            found.append(f"{target}: no such file")
        elif place and place not in places(path):
            found.append(f"{target}: no such heading or function")
    return found


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_the_links_of_a_page_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    assert wrong(page, text) == []
    assert APART.findall(BLOCK.sub("code", text)) == [], "links have the form [words](target)"


def test_a_link_that_leads_nowhere_is_found():
    page = ROOT / "docs" / "tour.md"
    fine = "[a](equations.md#the-equations) ![b](images/tour-wires.svg) `[c](no.md)`\n```\n[d](no.md)\n```\n[e](https://a.org)"
    fine += '<a href="rules.md"><img src="images/tour-wires.svg" width="99" alt="b"></a>'
    assert wrong(page, fine) == []
    for link in (
        "[a](equation.md)",
        "[a](equations.md#none)",
        "[a](#none)",
        "![](images/tour-wires.svg)",
        "[a](images)",
    ):
        assert len(wrong(page, link)) == 1, link
    for link in ("[a](http://a.org)", "[a](https://a)", "[a](../tests/pages.py#none)", "[a](../../etc/passwd)"):
        assert len(wrong(page, link)) == 1, link


def test_headings_have_the_anchors_of_github():
    page = "# `nestlearn train`\n## A, b & c: d-e\n## Same\n## Same\n### O5. [M](x.md) of W_t\n```\n# no\n```\n"
    assert anchors(page) == {"nestlearn-train", "a-b--c-d-e", "same", "same-1", "o5-m-of-w_t"}
