"""Files inside the page: each is compressed and held by the link that saves it.

A link is a ``data:`` address of a gzip file, so it works without scripts; a few lines of script in the page unpack it
on the way, and save the plain file instead.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from nestlearn.report.series import Measured
from nestlearn.training.series import Curve, Looks

__all__ = ["curves_csv", "download", "events_csv"]

ROWS = 4096  # of a part


def download(name: str, kind: str, content: str | Iterable[str]) -> dict[str, str]:
    """A file for the page: its name, its media type, its size in words, and its address.

    Args:
        content: the text, or its parts, which need not all be in memory at once.
    """
    packer, packed, size = zlib.compressobj(level=1, wbits=31), bytearray(), 0  # 31: with gzip's header, no time in it
    for part in (content,) if isinstance(content, str) else content:
        plain = part.encode("utf-8", "backslashreplace")
        size += len(plain)
        packed += packer.compress(plain)
    packed += packer.flush()
    data = base64.b64encode(packed).decode("ascii")
    return {"name": name, "kind": kind, "size": _size(size), "uri": f"data:application/gzip;base64,{data}"}


def _size(count: int) -> str:
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def curves_csv(measured: Mapping[str, Measured]) -> Iterator[str]:
    """Every logged point of the runs in the table, in parts: losses with nine digits, as many as float32 has, seconds
    with five after the point.
    """
    yield "optimizer,seed,split,step,seconds,loss\n"
    for name, found in measured.items():
        for run in found.runs:
            for split, points in (("train", run.train), ("validation", run.curve)):
                curve = Curve.of(points)
                line = f"{_quoted(name)},{run.seed},{split},".replace("%", "%%") + "%d,%.5f,%.9g\n"
                yield from _parts(line, curve.steps, curve.seconds, curve.losses)


def events_csv(measured: Mapping[str, Measured]) -> Iterator[str]:
    """Every look at a memory of the runs in the table, in parts."""
    yield "optimizer,seed,memory,step,surprise\n"
    for name, found in measured.items():
        for run in found.runs:
            looks = run.surprises if isinstance(run.surprises, Looks) else Looks(run.surprises)
            start = f"{_quoted(name)},{run.seed},".replace("%", "%%") + "%s,%d,%.9g\n"
            names = [_quoted(memory) for memory in looks.names]
            yield from _parts(start, map(names.__getitem__, looks.places), looks.steps, looks.values)


def _parts(line: str, *columns: Iterable[Any]) -> Iterator[str]:
    rows = zip(*columns, strict=True)
    while some := tuple(chain.from_iterable(islice(rows, ROWS))):
        text = line * (len(some) // len(columns)) % some
        yield text.replace(",nan\n", ",\n")  # a value that is none


def _quoted(field: str) -> str:
    """A field of CSV; a name of the user's own may hold a comma or a quote."""
    if not any(character in field for character in ',"\n\r'):
        return field
    doubled = field.replace('"', '""')
    return f'"{doubled}"'
