"""The table of docs/from-adamw.md: where to start with each optimizer, from the record of its experiment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from between_marks import between_marks

__all__ = ["recorded", "with_rates"]

RECORD = Path(__file__).resolve().parents[1] / "experiments" / "optimizers" / "from_adamw" / "results" / "full.json"


def recorded() -> Mapping[str, float]:
    """The figures of the full size of the experiment."""
    found: Mapping[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    figures: Mapping[str, float] = found["figures"]
    return figures


def with_rates(page: str, figures: Mapping[str, float]) -> str:
    """The page with the table of today between its marks.

    Args:
        figures: as ``recorded`` has them.
    """
    return between_marks(page, "rates", _table(figures))


def _table(figures: Mapping[str, float]) -> Iterator[str]:
    tasks = [name.split("/")[1] for name in figures if name.startswith("AdamW/") and name.endswith("/rate")]
    labels = [name.removesuffix("/advised") for name in figures if name.endswith("/advised") and name.count("/") == 1]
    yield "AdamW: " + "; ".join(
        f"{task}, lr {figures[f'AdamW/{task}/rate']:g}, test loss {figures[f'AdamW/{task}/loss']:.3f}" for task in tasks
    )
    yield from ("", f"| optimizer | your AdamW rate was X: start here | {' | '.join(tasks)} | with lr=X |")
    yield f"| --- | --- |{' --- |' * len(tasks)} --- |"
    for label in labels:
        name, tables = label.partition(", ")[::2]
        call = f"`lr={_times(figures[f'{label}/advised'])}`"
        if tables:
            call += f", `elementwise=tables`{', `elementwise_lr=X`' if figures[f'{label}/keeps_rate'] else ''}"
        there = [_difference(figures[f"{label}/{task}/advised"]) for task in tasks]
        left = ", ".join(_difference(figures[f"{label}/{task}/unchanged"]) for task in tasks)
        yield f"| `{name}` | {call} | {' | '.join(there)} | {left} |"


def _times(ratio: float) -> str:
    if ratio == 1:
        return "X"
    return f"{ratio:g} * X" if ratio > 1 else f"X / {1 / ratio:g}"


def _difference(value: float) -> str:
    return f"{value:+.3f}" if value < 1e9 else "diverges"
