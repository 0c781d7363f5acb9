"""Where two nested structures of tensors, numbers and strings differ, bit for bit; and what a training run left."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from nestlearn.training.checkpoint import Checkpoints

__all__ = ["TIMES", "differences", "left_behind"]

TIMES = ("seconds", "step_ms", "optimizer_ms", "clock", "files", "started", "sha256")
"""What two runs of the same settings may differ in; "files" and "sha256" are of lines that hold seconds."""


def left_behind(folder: Path, seeds: int = 2) -> dict[str, Any]:
    """All that `nestlearn train` left in a folder, parsed: rows, results, and the last checkpoint of each seed."""
    found: dict[str, Any] = {
        name: [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "events.jsonl")
    }
    assert found["events.jsonl"], "the optimizer has no memory with a surprise, so its rows are not tested"
    found["results"] = json.loads((folder / "results.json").read_text())
    for run in (f"seed{seed}" for seed in range(seeds)):
        last, notes = Checkpoints(folder / "checkpoints", run).newest()
        assert last is not None and not notes, notes
        for rows in ("train", "curve"):  # [step, seconds, loss]
            last["training"][rows] = [[row[0], row[2]] for row in last["training"][rows]]
        found[run] = last
    return found


def differences(one: Any, two: Any, where: str = "", ignore: tuple[str, ...] = ()) -> list[str]:
    """The paths at which ``one`` and ``two`` differ; keys in ``ignore`` are not looked at. NaN equals NaN."""
    return list(_walk(one, two, where or "it", frozenset(ignore)))


def _walk(one: Any, two: Any, where: str, ignore: frozenset[str]) -> Iterator[str]:
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        same = one.dtype == two.dtype and torch.equal(one.isnan(), two.isnan())
        if not same or not torch.equal(one.nan_to_num(), two.nan_to_num()):
            yield where
    elif isinstance(one, Mapping) and isinstance(two, Mapping):
        for key in [*one, *(key for key in two if key not in one)]:
            if key in ignore:
                continue
            if key not in one or key not in two:
                yield f"{where}.{key} (in one of them only)"
            else:
                yield from _walk(one[key], two[key], f"{where}.{key}", ignore)
    elif isinstance(one, list | tuple) and isinstance(two, list | tuple):
        if len(one) != len(two):
            yield f"{where} (lengths {len(one)} and {len(two)})"
        for index, pair in enumerate(zip(one, two, strict=False)):
            yield from _walk(*pair, f"{where}[{index}]", ignore)
    elif type(one) is not type(two) or not (one == two or (one != one and two != two)):
        yield f"{where} ({one!r} and {two!r})"
