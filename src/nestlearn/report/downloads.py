"""Files inside the page: each is compressed and held by the link that saves it.

A link is a ``data:`` address of a gzip file, so it works without scripts; a few lines of script in the page unpack it
on the way, and save the plain file instead.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping

from nestlearn.report.series import Measured

__all__ = ["curves_csv", "download", "events_csv"]


def download(name: str, kind: str, content: str) -> dict[str, str]:
    """A file for the page: its name, its media type, its size in words, and its address."""
    plain = content.encode("utf-8")
    packer = zlib.compressobj(level=1, wbits=31)  # 31: with the header of gzip, and no time in it
    data = base64.b64encode(packer.compress(plain) + packer.flush()).decode("ascii")
    return {"name": name, "kind": kind, "size": _size(len(plain)), "uri": f"data:application/gzip;base64,{data}"}


def _size(count: int) -> str:
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def curves_csv(measured: Mapping[str, Measured]) -> str:
    """Every logged point of the runs in the table: losses with nine digits, as many as float32 has, seconds with five
    after the point.
    """
    lines = ["optimizer,seed,split,step,seconds,loss"]
    for name, found in measured.items():
        for run in found.runs:
            for split, points in (("train", run.train), ("validation", run.curve)):
                start = f"{_quoted(name)},{run.seed},{split}"
                lines += [
                    f"{start},{step},{seconds:.5f},{'' if loss is None else f'{loss:.9g}'}"
                    for step, seconds, loss in points
                ]
    return "\n".join(lines) + "\n"


def events_csv(measured: Mapping[str, Measured]) -> str:
    """Every look at a memory of the runs in the table."""
    lines = ["optimizer,seed,memory,step,surprise"]
    for name, found in measured.items():
        for run in found.runs:
            start = f"{_quoted(name)},{run.seed}"
            lines += [
                f"{start},{_quoted(memory)},{step},{'' if value is None else f'{value:.9g}'}"
                for step, memory, value in run.surprises
            ]
    return "\n".join(lines) + "\n"


def _quoted(field: str) -> str:
    """A field of CSV; a name of the user's own may hold a comma or a quote."""
    if not any(character in field for character in ',"\n\r'):
        return field
    doubled = field.replace('"', '""')
    return f'"{doubled}"'
