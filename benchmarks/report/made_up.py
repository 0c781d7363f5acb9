"""A run folder of any size without any training: real searches and real summaries of made-up runs.

Losses follow a made-up law: falling with the steps, best at a made-up learning rate, with noise that is the same each
time. Everything else (which trials there are, what is chosen, all figures of the table) is the work of
``nestlearn.comparison``, so the folder has today's shape.
"""

import json
import math
import random
import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from nestlearn.comparison import CompareSettings, plan, resolve, summarise
from nestlearn.contenders import find_contenders
from nestlearn.training import Point, RunFolder, RunResult, RunSpec, to_yaml
from nestlearn.training.run_folder import write_atomic

__all__ = ["made_up_folder", "made_up_run"]

MEMORIES = ("momentum", "skip")


def made_up_run(spec: RunSpec, points: int, looks: int, memories: Sequence[str] = MEMORIES) -> RunResult:
    """What training as ``spec`` says might have given: ``points`` rows of training loss and ``looks`` at each memory if
    it is of full length, few if it is a trial. A learning rate above 3 diverges, and so does M3 at full length.
    """
    noise = random.Random(spec.key)
    settings = dict(spec.settings)
    gift = random.Random(spec.variant.name).uniform(0.0, 0.3)  # a contender is a little better or worse
    best = math.log10(settings["lr"]) + 1.5 + gift
    floor = 0.2 + gift + 0.1 * best**2 + 0.02 * noise.random()
    diverged = settings["lr"] > 3 or (spec.full and spec.variant.contender == "M3" and not spec.variant.control)
    last = spec.steps // 3 if diverged else spec.steps

    def loss(step: int) -> float:
        return _float32(floor + 2.0 * math.exp(-6.0 * step / spec.steps) + abs(noise.gauss(0.0, 0.05)))

    seconds = list(accumulate((1.1e-3 + 1e-4 * noise.random() for _ in range(last)), initial=0.0))
    steps, looked, checked = (
        range(every, last + 1, every)
        for every in (max(1, spec.steps // rows) for rows in (points if spec.full else 40, looks, 20))
    )
    figures = {"loss": floor, "accuracy": 100 * math.exp(-floor)}
    return RunResult(
        key=spec.key,
        task=spec.task,
        variant=spec.variant.name,
        settings=settings,
        seed=spec.seed,
        steps=spec.steps,
        full=spec.full,
        status="diverged" if diverged else "finished",
        reason=f"step {last}: the training loss is nan" if diverged else "",
        validation={} if diverged else figures,
        test={name: value * 1.01 for name, value in figures.items()} if spec.full and not diverged else {},
        step_ms=1.1 + gift,
        optimizer_ms=0.3 + gift,
        state_bytes=int(80_000 * (1 + 4 * gift)),
        parameters=9610,
        train=[Point(step, seconds[step], loss(step)) for step in steps],
        curve=[Point(step, seconds[step], loss(step)) for step in checked] if spec.full else [],
        surprises=[
            [step, name, _float32(math.exp(noise.gauss(-step / spec.steps, 0.3)) / (place + 1))]
            for step in (looked if spec.full else ())
            for place, name in enumerate(memories)
        ],
    )


def _float32(value: float) -> float:
    """The nearest number that float32 has: what training measures."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def made_up_folder(
    path: Path, optimizers: Iterable[str], *, tasks: Sequence[str] = ("digits",), points: int = 40, looks: int = 20,
    **settings: Any,
) -> RunFolder:  # fmt: skip
    """A finished run folder of a comparison between ``optimizers``; ``settings`` are fields of its settings."""
    resolved = resolve(CompareSettings(tasks=tuple(tasks), optimizers=tuple(optimizers), **settings))
    folder = RunFolder.create(path)
    write_atomic(folder.config, to_yaml(resolved))
    facts = {"started": "2026-01-01 12:00 UTC", "processor": "a machine", "torch": "2", "workers": 2, "seconds": 60.0}
    write_atomic(folder.environment, json.dumps(facts))
    searches = plan(find_contenders(resolved.optimizers), resolved)
    for search in searches:
        while fresh := search.next():
            for spec in fresh:
                result = made_up_run(spec, points, looks)
                folder.add(result)
                search.record(result)
    write_atomic(folder.results, json.dumps(summarise(searches, resolved).to_plain(), allow_nan=False))
    return folder
