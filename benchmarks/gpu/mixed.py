"""Training in half precision: float16 with a scaler, a step that overflows, bfloat16 by autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.problem import Problem, build, fewer
from benchmarks.gpu.settings import SETTINGS, Setting

__all__ = ["row"]

STEPS, DRY = 12, 4
"""Here and in a dry run."""


def row(device: str, number: int) -> dict[str, Any]:
    """Whether the loss falls under both, and whether an overflow leaves everything as it was."""
    setting = SETTINGS[number]
    falls = {"bfloat16": _bfloat16(setting, device)}
    kept: dict[str, Any] = {}
    if not setting.closure:  # torch's scaler takes no closure
        falls["float16"], kept = _float16(setting, device)
    trained = not setting.trains or all(after < before for before, after in falls.values())
    right = trained and all(kept.values())
    words = [f"{name} {before:.3f} -> {after:.3f}" for name, (before, after) in falls.items()]
    words += [f"NOT {name}" for name, held in kept.items() if not held]
    return {**falls, **kept, "status": "ok" if right else "wrong", "note": ", ".join(words)}


def _bfloat16(setting: Setting, device: str) -> tuple[float, float]:
    """The first loss and the last."""
    problem = Problem(device, torch.float32)
    optimizer = build(setting, problem.module)
    losses = [problem.step(setting, optimizer, half=torch.bfloat16) for _ in range(fewer(device, STEPS, DRY))]
    return float(losses[0]), float(losses[-1])


def _float16(setting: Setting, device: str) -> tuple[tuple[float, float], dict[str, bool]]:
    """The first loss and the last, and what an overflow in the middle must not change."""
    problem = Problem(device, torch.float32)
    optimizer = build(setting, problem.module)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0)
    losses: list[Tensor] = []
    kept: dict[str, bool] = {}
    steps = fewer(device, STEPS, DRY)
    for step in range(steps):
        if step == steps // 2:
            kept = _overflow(problem, optimizer, scaler)
        optimizer.zero_grad()
        losses.append(problem.loss(half=torch.float16))
        scaler.scale(losses[-1]).backward()
        scaler.step(optimizer)
        scaler.update()
    return (float(losses[0]), float(losses[-1])), kept


def _overflow(problem: Problem, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> dict[str, bool]:
    optimizer.zero_grad()
    scaler.scale(problem.loss(half=torch.float16)).backward()
    next(problem.module.parameters()).grad[0, 0] = torch.inf  # type: ignore[index]
    before, scale = _everything(optimizer), scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    after = _everything(optimizer)
    same = before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    return {"weights and memories kept": same, "scale halved": scaler.get_scale() == scale / 2}


def _everything(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies of all weights and all state."""
    found = {}
    for group in optimizer.param_groups:
        for place, parameter in enumerate(group["params"]):
            found[f"{place}"] = parameter.detach().clone()
            for name, tensor in optimizer.state[parameter].items():
                found[f"{place}.{name}"] = tensor.detach().clone()
    return found
