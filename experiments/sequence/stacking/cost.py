"""``python -m experiments.sequence.stacking.cost``: what learning costs a token of SmolLM2, beside the frozen model."""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from experiments.harness import markdown
from experiments.sequence.stacking.source import smollm2
from nestlearn.models import add_continuum

ROUNDS, TOKENS = 5, 1024
WAYS: tuple[dict[str, Any], ...] = (
    {"blocks": 4, "periods": 64},
    {"blocks": 4, "periods": 256},
    {"blocks": 8, "periods": 64},
    {"blocks": 30, "periods": 256, "objective": "direct"},
)


def main() -> None:
    """Each way and the frozen model in turn, CPU seconds on one thread, the median of the ratios."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    source = smollm2()
    tokens = source.tokenize(source.book)[:, :TOKENS]

    def read(inner_lr: float, **way: Any) -> tuple[float, int]:
        continuum = add_continuum(source.model, inner_lr=inner_lr, **way)
        start = time.process_time()
        continuum.read(tokens, window=TOKENS)
        seconds, kept = time.process_time() - start, continuum.bytes
        continuum.remove()
        return seconds, kept

    def frozen() -> float:
        """As a whole: pieces that end where a write is due are part of what learning costs."""
        return read(0.0, periods=TOKENS)[0]

    frozen()
    rows = []
    for way in WAYS:
        ratios = []
        for _ in range(ROUNDS):
            before, (seconds, kept) = frozen(), read(1e-5, **way)
            ratios.append(seconds / before)
        what = ", ".join(f"{name} {value}" for name, value in way.items())
        rows.append([what, f"{torch.tensor(ratios).median():.2f}", f"{kept / 1e6:.0f} MB"])
    print(markdown(["", "time a token, frozen 1", "state"], rows))


if __name__ == "__main__":
    main()
