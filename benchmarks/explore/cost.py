"""What a recorder takes of a training's time, by the processor's clock, which other processes do not move."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from time import process_time
from typing import Any

import torch
from torch.nn import functional as F

import nestlearn as nl
from nestlearn.integrations import recording

__all__ = ["cost"]

MAKES: dict[str, Callable[[torch.nn.Module], torch.optim.Optimizer]] = {
    "DeepMomentum": lambda model: nl.optim.DeepMomentum(model.named_parameters()),
    "AdamW": lambda model: torch.optim.AdamW(model.named_parameters()),
}


def cost(name: str, steps: int) -> dict[str, Any]:
    """What of its seconds a recorder takes of a transformer of 0.5 M parameters that learns random tokens."""
    torch.manual_seed(0)
    model = nl.models.transformer(64, 128, 2, 4)
    optimizer = MAKES[name](model)
    recording.perf_counter = process_time
    with tempfile.TemporaryDirectory() as folder, nl.record(optimizer, folder) as recorder:
        start = process_time()
        for _ in range(steps):
            tokens = torch.randint(0, 64, (8, 64))
            loss = F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            recorder.loss(loss)
            optimizer.step()
        seconds = process_time() - start
        looks = len((recorder.folder.path / "writes.jsonl").read_text().splitlines()) - 1
        frozen = len(list((recorder.folder.path / "frozen").iterdir()))
    return {
        "what": f"recording a training with {name}",
        "steps": steps,
        "looks": looks,
        "frozen": frozen,
        "share": recorder.spent / seconds,
        "step_ms": 1000 * (seconds - recorder.spent) / steps,
    }
