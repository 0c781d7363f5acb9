"""What lies outside may hold anything: one way to read bytes that others may have written, or changed.

Every loader of the library goes through these few functions. Whatever the bytes are, the answer is the content or the
one error that the loader documents, with the name of the file in it; and it comes soon, because sizes, depths and
numbers of values are bounded before anything is made of them.

    with foreign(RunFolderError, f"cannot read {path}"):
        content = read_json(path, RunFolderError)
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from nestlearn.errors import NestlearnError

__all__ = [
    "MOST_JSON",
    "finite",
    "foreign",
    "parse_json",
    "printable",
    "read_bytes",
    "read_json",
    "reason",
    "regular",
    "shown",
]

MOST_JSON = 32 << 20  # bytes of a JSON file that is read whole
MOST_SHOWN, MOST_REASON = 80, 400  # characters of a value, and of a reason, in a message
DEPTH = 100


@contextmanager
def foreign(kind: type[NestlearnError], what: str) -> Iterator[None]:
    """A block that makes something of foreign bytes: whatever goes wrong in it is a ``kind`` that begins with ``what``.

    Our own exceptions pass; they have said already what is wrong.
    """
    try:
        yield
    except NestlearnError:
        raise
    except Exception as error:
        raise kind(f"{what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What an exception says, in one short line; its name where it says nothing that can be read alone."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text (byte {error.start})"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    text = printable(" ".join(str(error)[: 4 * MOST_REASON].split()), MOST_REASON)
    plain = isinstance(error, ValueError | RuntimeError) and text
    return text if plain else f"{type(error).__name__}{text and ': '}{text}"


def regular(path: str | os.PathLike[str]) -> int:
    """The size of a regular file.

    Raises:
        OSError: there is no such file, or it is something else, such as a folder, a pipe or a device.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise OSError(0, f"it is {what}")
    return found.st_size


def read_bytes(path: Path, kind: type[NestlearnError], most: int) -> bytes:
    """The bytes of a regular file, at most ``most`` of them.

    Raises:
        kind: it cannot be read, is not a regular file, or is longer.
    """
    with foreign(kind, f"cannot read {path}"):
        size = regular(path)
        if size > most:
            raise ValueError(f"expected at most {most:,} bytes, found {size:,}")
        return path.read_bytes()


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON: not UTF-8, no numbers for numbers (NaN, Infinity), or nested deeper than a hundred.
    """
    text = data if isinstance(data, str) else data.decode("utf-8")
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if text.count("[") + text.count("{") > DEPTH and _depth(value) > DEPTH:
        raise ValueError("it is nested too deeply")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _depth(value: Any) -> int:
    """How deep lists and mappings lie in each other, as far as a hundred and one."""
    depth, level = 0, [value]
    while level and depth <= DEPTH:
        level = [item for each in level if isinstance(each, dict | list) for item in _items(each)]
        depth += 1
    return depth


def _items(value: dict[str, Any] | list[Any]) -> Any:
    return value.values() if isinstance(value, dict) else value


def read_json(path: Path, kind: type[NestlearnError], most: int = MOST_JSON) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        kind: the file cannot be read, is too long, is not JSON, or holds something else than an object; the message
            names it, and the line where it is not JSON.
    """
    data = read_bytes(path, kind, most)
    try:
        value = parse_json(data)
    except json.JSONDecodeError as error:
        raise kind(f"{path}, line {error.lineno}: expected JSON ({error.msg})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise kind(f"{path}: expected JSON ({reason(error)})") from error
    if not isinstance(value, dict):
        raise kind(f"{path}: expected a JSON object, got {shown(value)}")
    return value


def finite(value: Any) -> Any:
    """The same with None for each number that JSON cannot say: NaN, and infinity, as which too large a one is read.

    Example:
        >>> finite({"loss": [1.5, float("nan")]})
        {'loss': [1.5, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def shown(value: Any) -> str:
    """A value in a message: as Python writes it, but short, in one line, and without control characters."""
    try:
        text = repr(value) if _few(value) else f"a large {type(value).__name__}"
    except Exception:  # noqa: BLE001 - a number of too many digits, a value that cannot say itself
        text = f"a {type(value).__name__}"
    return printable(text, MOST_SHOWN)


def printable(text: str, most: int = MOST_SHOWN) -> str:
    """A text in a message: at most so many characters of it, without control characters."""
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: most + 1])
    return text if len(text) <= most else text[: most - 3] + "..."


def _few(value: Any) -> bool:
    """Whether a value holds so little that it can be said: shared parts may be many times there."""
    left, queue = 1000, [value]
    while queue and left > 0:
        each = queue.pop()
        left -= 1
        if isinstance(each, dict):
            left -= len(each)
            queue += [*each.keys(), *each.values()] if left > 0 else []
        elif isinstance(each, list | tuple | set | frozenset):
            left -= len(each)
            queue += each if left > 0 else []
    return left > 0
