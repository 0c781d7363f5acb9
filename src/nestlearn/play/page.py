"""The playground as one HTML file: its modules joined, nothing fetched.

The page is written in plain ES modules, which lie beside this file. A file opened from a disk cannot import others, so
the writer puts them into one script, each behind those that it imports. No name is declared twice at the top of two
modules; a browser would refuse the script. The page's own policy lets this script run, by its hash, and nothing else.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from nestlearn.files import write_atomic

__all__ = ["page", "write_page"]

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=const |let |function\*? |class )", re.MULTILINE)


def write_page(path: Path) -> Path:
    """Write the playground to ``path``, an HTML file that needs nothing but itself, and return the path.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> write_page(Path(mkdtemp()) / "playground.html").name
        'playground.html'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page())
    return path


def page() -> str:
    """The text of the playground."""
    script = "\n" + "\n".join(_EXPORT.sub("", _IMPORT.sub("", _own_file(name))) for name in _modules("page.js"))
    style = "\n" + "".join(map(_own_file, ("colours.css", "page.css", "nesting.css")))
    parts = {"style": style, "script": script, "style hash": _hash(style), "script hash": _hash(script)}
    return re.sub(r"\{\{ ([a-z ]+) \}\}", lambda found: parts[found[1]], _own_file("page.html"))


def _modules(entry: str) -> Iterator[str]:
    """A module and all that it imports, each once and behind its own imports."""
    done: set[str] = set()

    def behind(name: str) -> Iterator[str]:
        if name not in done:
            done.add(name)
            for found in _IMPORT.findall(_own_file(name)):
                yield from behind(found)
            yield name

    return behind(entry)


def _hash(text: str) -> str:
    """What a content security policy knows a script or a style by."""
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


def _own_file(name: str) -> str:
    return files("nestlearn.play").joinpath(name).read_text(encoding="utf-8")
