"""Runs that nobody trained, and a server of them in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
from patience import PATIENCE

from nestlearn.explore import Shelf

if TYPE_CHECKING:
    from nestlearn.explore.serving import Serving

LANES = [
    {"name": f"{memory}/{role}", "level": level, "memory": memory, "role": role, "period": period, "parameters": 2}
    for memory, level, period in (("matrix", 1, 1), ("matrix.slow", 2, 4), ("matrix.momentum", 3, 1))
    for role in ("blocks.*.up.weight", "blocks.*.down.weight")
]
TENSOR = {"shape": [2, 2], "rms": 0.5, "largest": 1.0, "cells": [[1.0, -0.5], [0.25, 0.0]]}
FROZEN = {
    "format": 1,
    "seconds": 1.0,
    "parameters": [
        {
            "name": "blocks.0.up.weight",
            "role": "blocks.*.up.weight",
            "gradient": TENSOR,
            "weights": {"before": TENSOR, "change": TENSOR, "singular": [1.1, 0.4]},
            "update": {**TENSOR, "singular": [1.0, 1.0]},
            "memories": [
                {
                    "path": "momentum",
                    "model": "MLP 2-4-2",
                    "objective": "l2",
                    "surprise": 0.125,
                    "key": TENSOR,
                    "value": TENSOR,
                    "answer": TENSOR,
                    "error": TENSOR,
                    "write": {"inner": TENSOR},
                    "written": True,
                    "readout": {
                        "after": TENSOR,
                        "singular": [0.9, 0.8],
                        "before": TENSOR,
                        "singular before": [3.0, 0.1],
                    },
                }
            ],
            "note": "",
        }
    ],
}
SYSTEM = {
    "name": "Muon",
    "memories": [
        {"name": "weights", "symbol": "W", "model": "the model's parameters", "home": "weights"},
        {"name": "slow", "symbol": "slow", "model": "box", "home": "optimizer"},
        {"name": "momentum", "symbol": "M", "model": "MLP 2-4-2", "home": "optimizer"},
    ],
}


def line(step: int) -> str:
    """A row of writes: what a lane has is known from its number and the step."""
    surprise = [None, None, None, None, step + 0.5, step + 0.25]
    update = [1.0 / (step + lane) for lane in range(len(LANES))]
    return json.dumps({"step": step, "seconds": step / 10, "surprise": surprise, "update": update}) + "\n"


def point(step: int, loss: float, kind: str = "train", run: str = "mine") -> str:
    return json.dumps({"kind": kind, "run": run, "step": step, "seconds": step / 10, "loss": loss}) + "\n"


def made(folder: Path, steps: int, lanes: list[dict[str, Any]] = LANES, frozen: tuple[int, ...] = (10, 30)) -> Path:
    """A record of so many steps."""
    (folder / "frozen").mkdir(parents=True)
    about = {"kind": "record", "format": 1, "run": "mine", "optimizer": "Muon", "systems": [SYSTEM]}
    (folder / "record.json").write_text(json.dumps(about))
    rows = "".join(map(line, range(1, steps + 1)))
    (folder / "writes.jsonl").write_text(json.dumps({"lanes": lanes}) + "\n" + rows)
    losses = "".join(point(step, 1 / step) for step in range(1, steps + 1))
    (folder / "metrics.jsonl").write_text(losses + point(steps, 0.5, "validation"))
    for step in frozen:
        (folder / "frozen" / f"{step}.json").write_text(json.dumps({**FROZEN, "step": step}))
    return folder


def grow(folder: Path, first: int, last: int) -> None:
    """More steps of a record."""
    with (folder / "writes.jsonl").open("a") as writes, (folder / "metrics.jsonl").open("a") as metrics:
        for step in range(first, last + 1):
            writes.write(line(step))
            metrics.write(point(step, 1 / step))


def unpacked(data: bytes | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The head of a frame, and its blocks."""
    assert data is not None
    end = data.index(b"\n") + 1
    head, blocks = json.loads(data[:end]), {}
    for name, kind, length in head["blocks"]:
        assert end % 8 == 0
        blocks[name] = np.frombuffer(data, f"<{kind}", length, end)
        end += -(-blocks[name].nbytes // 8) * 8
    assert end == len(data)
    return head, blocks


@contextmanager
def serving(*paths: Path, command: Sequence[str] = (), states: Path | None = None) -> Iterator[Serving]:
    """A server; ``command`` begins what reads texts."""
    from nestlearn.explore.reading import Readings
    from nestlearn.explore.serving import Serving

    shelf = Shelf(paths)
    server = Serving(shelf, readings=Readings(shelf, command, states) if command else None)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def get(
    server: Serving, path: str, token: str | None = None, *, sent: bytes | None = None, **headers: str
) -> tuple[int, Any, Any]:
    """Status, content and headers of an answer, to a POST where something is sent."""
    told = {"Authorization": f"Bearer {server.token if token is None else token}", **headers}
    try:
        with urlopen(Request(f"http://127.0.0.1:{server.port}{path}", sent, headers=told), timeout=PATIENCE) as answer:
            return answer.status, answer.read(), answer.headers
    except HTTPError as error:
        with error:
            return error.code, error.read(), error.headers
