"""The page as one HTML file that fetches nothing: its modules joined, styles, and data inside.

A file opened from a disk cannot import others, so each module becomes a function that returns what it exports, behind
those that it imports. The page's own policy lets this script and this style be used, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any

__all__ = ["embedded", "joined", "page"]

STYLES = ("play/colours.css", "play/nesting.css", "vendor/uPlot.min.css", "page.css")
INSTEAD = {"live.js": "held.js"}
"""Modules that others stand for, where there is no server."""

_IMPORT = re.compile(r'^import (?:(?P<default>\w+)|(?P<names>\{[^}]*\})) from "(?P<path>[^"]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|let|class|function|async function) (\w+))", re.MULTILINE)
_DEFAULT = re.compile(r"^export \{ (\w+) as default \};$", re.MULTILINE)
_LINK = re.compile(r'<link rel="stylesheet" href="[^"]*">\n')
_ELSEWHERE = re.compile(r'<a href="/[^"]*">[^<]*</a>\n')
_SCRIPT = re.compile(r'<script type="module" src="[^"]*"></script>')


def page(data: Mapping[str, Any] | None) -> str:
    """The text of the page.

    Args:
        data: what `nestlearn.explore.export.held` gives; None for a page in a frame, whose data come from around it.
    """
    style = "\n" + "".join(map(_text, STYLES))
    script = "\n" + joined("page.js")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>\n'
    body = (
        f'<script type="application/json" id="held">{embedded(data)}</script>\n<script type="module">{script}</script>'
    )
    text = _ELSEWHERE.sub("", _LINK.sub("", _text("page.html"))).replace("<title>", head + "<title>", 1)
    return _SCRIPT.sub(lambda _: body, text)


def embedded(data: Any) -> str:
    """Data as they lie in the page: no text of a run can end its element, as JSON says the sign in another way."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def joined(entry: str) -> str:
    """A module and all that it imports as one script, each as a function that returns what it exports."""
    parts = ["const modules = {};\n"]
    for name in _behind(entry, set()):
        text = _text(name)
        # Of a module of others its one export counts: it has more in its comments.
        whole = [f"default: {found[1]}" for found in _DEFAULT.finditer(text)]
        exported = whole or [found[1] for found in _EXPORT.finditer(text)]
        text = _IMPORT.sub(lambda found, name=name: _taken(found, name), text)  # type: ignore[misc]
        text = _DEFAULT.sub("", _EXPORT.sub("", text))
        parts.append(f'modules["{name}"] = (() => {{\n{text}return {{ {", ".join(exported)} }};\n}})();\n')
    return "".join(parts)


def _behind(name: str, done: set[str]) -> Iterator[str]:
    """A module behind all that it imports, each once."""
    if name in done:
        return
    done.add(name)
    for found in _IMPORT.finditer(_text(name)):
        yield from _behind(_address(found["path"], name), done)
    yield name


def _address(path: str, importer: str) -> str:
    """Where an imported module lies, seen from the root of the server."""
    found = posixpath.normpath(posixpath.join("/", posixpath.dirname(importer), path)).removeprefix("/")
    return INSTEAD.get(found, found)


def _taken(found: re.Match[str], importer: str) -> str:
    """An import as a declaration."""
    names = f"{{ default: {found['default']} }}" if found["default"] else found["names"].replace(" as ", ": ")
    return f'const {names} = modules["{_address(found["path"], importer)}"];'


def _text(name: str) -> str:
    """A file by its address: those of the playground are beside ours."""
    folder = "" if name.startswith("play/") else "explore/"
    return files("nestlearn").joinpath(*f"{folder}{name}".split("/")).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What a content security policy knows a script or a style by."""
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()
