"""Spoilt files, from whole ones: the same for the same seed, on every machine."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

__all__ = ["spoilt_bytes", "spoilt_json", "spoilt_value"]

WORDS = (
    *(b"null", b"NaN", b"Infinity", b"-1", b"1e999", b"1" + b"0" * 400, b"9" * 5000, b"18446744073709551616"),
    *(b"[" * 3000, b'{"a":' * 3000, b"{}", b"[]", b'"', b"\\ud800", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b[31m"),
    *(b"*a", b"&a [*a]", b"!!bool x", b"!!python/object:os.system", b"? [a]", b": ", b"- ", b"<<: ", b"\n", b"\r\n"),
    *(b"..", b"PK\x03\x04"),
)
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1 << 62, 1 << 64, 10**30, 0.5, -1e300, 1e300, "", "x", "\x1b[2J", "\ud800", "a" * 2000),
    *("..x:y", "../../x", [], {}, [[]], [None], {"": None}, {"loss": None}, [1, "a", None], "NaN", {"name": "x"}),
    "__import__('os')",
)


def spoilt_bytes(data: bytes, draw: random.Random) -> bytes:
    """One to four faults of a disk, an editor, or someone who means ill."""
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(made) + 1)
        to = min(len(made), at + draw.choice((1, 2, 8, 64, 1000)))
        kind = draw.randrange(6)
        if kind == 0 and made:
            made[min(at, len(made) - 1)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del made[at:to]
        elif kind == 2:
            made[at:at] = made[at:to] * draw.choice((1, 3))
        elif kind == 3:
            made[at:at] = draw.choice(WORDS)
        elif kind == 4:
            made[at:to] = draw.choice(WORDS)
        else:
            del made[at:]
    return bytes(made)


def spoilt_value(value: Any, draw: random.Random, odd: tuple[Any, ...] = ODD) -> Any:
    """One to three parts of nested dictionaries and lists replaced, left out, or put under another name."""
    made = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 2, 3))):
        made = _one(made, draw, odd)
    return made


def _one(value: Any, draw: random.Random, odd: tuple[Any, ...]) -> Any:
    place, depth = value, draw.randrange(8)
    while True:
        if not isinstance(place, dict | list) or not place:
            return copy.deepcopy(draw.choice(odd)) if place is value else value
        key = draw.choice(list(place)) if isinstance(place, dict) else draw.randrange(len(place))
        if depth == 0 or not isinstance(place[key], dict | list) or not place[key]:
            break
        place, depth = place[key], depth - 1
    kind = draw.randrange(4)
    if kind == 0:
        del place[key]
    elif kind == 1 and isinstance(place, dict):
        place[f"{key}x"] = place.pop(key)
    elif kind == 2 and isinstance(place, list):
        place += [copy.deepcopy(place[key])] * draw.choice((1, 50))
    else:
        place[key] = copy.deepcopy(draw.choice(odd))
    return value


def spoilt_json(data: bytes, draw: random.Random, lines: bool = False) -> bytes:
    """A JSON file, or with ``lines`` one of a file of them, with spoilt values; or spoilt bytes, half of the time."""
    if draw.random() < 0.5:
        return spoilt_bytes(data, draw)
    write: Callable[[Any], bytes] = lambda value: json.dumps(value).encode()  # noqa: E731
    if not lines:
        return write(spoilt_value(json.loads(data), draw))
    rows = data.splitlines()
    at = draw.randrange(len(rows))
    rows[at] = write(spoilt_value(json.loads(rows[at]), draw))
    return b"\n".join(rows) + b"\n"
