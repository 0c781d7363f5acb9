"""How long the first call of a compiled model takes, and a later one; ``python -m benchmarks.sequence.compiling WAY``.

Each way has a process and an empty cache of kernels of its own. A first call is wall time, as compilers have
processes that help them; later calls are timed in turn with those of the same model as it is, in the same process.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from benchmarks.optim.timing import interleave
from benchmarks.sequence.models import count, network, training
from nestlearn.layers import compile_chunks
from nestlearn.models import LanguageModel

__all__ = ["WAYS", "compiling"]

MODEL, BATCH, TIME = "Hope", 2, 256
LONGEST = 60.0
"""Seconds of a first call that we wish for."""


def _blocks(model: LanguageModel) -> None:
    for block in model.blocks:
        block.compile(dynamic=False)


WAYS: Mapping[str, tuple[Callable[[LanguageModel], Any], float | None]] = {
    "its chunks compiled": (compile_chunks, LONGEST),
    "its blocks compiled": (_blocks, None),
    "the model compiled": (lambda model: model.compile(dynamic=False), None),
}
"""Names in the table -> what makes it so, and the largest number of seconds that passes."""


def compiling(quick: bool, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for the first call and one for later calls, of each way; a quick run has the fastest alone."""
    for way, (_, bar) in list(WAYS.items())[: 1 if quick else None]:
        with tempfile.TemporaryDirectory() as empty:
            found = subprocess.run(
                [sys.executable, "-m", "benchmarks.sequence.compiling", way, str(rounds)],
                env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": empty},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        measured = json.loads(found.stdout.splitlines()[-1])
        shared = {"ours": f"{MODEL}, {way}", "shape": f"B={BATCH} T={TIME}", "ours_parameters": measured["parameters"]}
        first, ratios = measured["first_s"], measured["ratios"]
        yield {
            **shared,
            "reference": f"{LONGEST:.0f} s",
            "what": "first call",
            "ratio": first / LONGEST,
            "quartiles": [first / LONGEST] * 2,
            "unit": "s",
            "bar": None if bar is None or quick else bar / LONGEST,
            "passed": None if bar is None or quick else first <= bar,
            "ours_value": first,
            "reference_value": LONGEST,
            "rounds": 1,
        }
        yield {
            **shared,
            "reference": "itself as it is",
            "what": "training step",
            "ratio": measured["ratio"],
            "quartiles": measured["quartiles"],
            "unit": "ms",
            "bar": None,
            "passed": None,
            "ours_value": measured["ours_ms"],
            "reference_value": measured["reference_ms"],
            "rounds": len(ratios),
        }


def _measured(way: str, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    plain = network(MODEL)
    compiled = copy.deepcopy(plain)
    WAYS[way][0](compiled)
    ours, reference = training(compiled, BATCH, TIME), training(plain, BATCH, TIME)
    reference.run()
    start = time.perf_counter()
    ours.run()
    first = time.perf_counter() - start
    later = interleave(ours, reference, device="cpu", rounds=rounds, cycle=1, target_ms=500)
    return {
        "first_s": first,
        "ratio": later.median,
        "quartiles": list(later.quartiles),
        "ratios": later.ratios,
        "ours_ms": later.ours_ms,
        "reference_ms": later.reference_ms,
        "parameters": count(plain),
    }


if __name__ == "__main__":
    print(json.dumps(_measured(sys.argv[1], int(sys.argv[2]))))
