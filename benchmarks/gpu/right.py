"""A setting on the device beside the same on the CPU: weights, learning rates as tensors, and where its state lies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.problem import Problem, build, difference, fewer
from benchmarks.gpu.settings import SETTINGS, Setting

__all__ = ["STEPS", "TOLERANCES", "row"]

STEPS, DRY = 6, 3
"""Here and in a dry run: what happens every second step happens in both, and something follows it."""

LR = 2.0**-7
"""A number that every dtype holds exactly, so that a tensor of it is the same rate."""

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
ROUGH = {torch.float64: 1e-6, torch.float32: float("inf")}
"""Largest difference of a weight after `STEPS` steps; weights are of order one half. Rough settings have their own."""

_AT_HOME = ("step", "pending_rows")
"""State that stays on the CPU, as the step counts of torch's optimizers do."""


def row(device: str, number: int) -> dict[str, Any]:
    """Everything of one setting; "wrong" if any of it is."""
    setting, steps = SETTINGS[number], fewer(device, STEPS, DRY)
    tolerances = ROUGH if setting.rough else TOLERANCES
    found: dict[str, Any] = {}
    for dtype, tolerance in tolerances.items():
        name = str(dtype).removeprefix("torch.")
        ours, optimizer = _trained(setting, device, dtype, LR, steps)
        if setting.draws:  # random numbers of the device are others than those of the CPU
            found[name] = None
        else:
            theirs, _ = _trained(setting, "cpu", dtype, LR, steps)
            found[name] = difference(ours.weights(), theirs.weights())
        found[f"{name} passed"] = found[name] is None or found[name] <= tolerance
        found[f"{name} finite"] = all(bool(torch.isfinite(weight).all()) for weight in ours.weights())
        if dtype == torch.float64:
            by_tensor, _ = _trained(setting, device, dtype, torch.tensor(LR, device=device), steps)
            found["lr as a tensor"] = difference(ours.weights(), by_tensor.weights())
            found["lr as a tensor passed"] = found["lr as a tensor"] <= tolerance
    found["elsewhere"] = _elsewhere(optimizer)
    verdicts = [value for name, value in found.items() if name.endswith(("passed", "finite"))]
    right = all(verdicts) and not found["elsewhere"]
    return {**found, "status": "ok" if right else "wrong", "note": _words(found)}


def _trained(
    setting: Setting, device: str, dtype: torch.dtype, lr: float | Tensor, steps: int
) -> tuple[Problem, torch.optim.Optimizer]:
    """After some steps from where one on the CPU has led: what a device draws from a seed is something else.

    So weights and state move from one device to another as in a checkpoint.
    """
    problem, home = Problem(device, dtype), Problem("cpu", dtype)
    optimizer, first = build(setting, problem.module, lr=lr), build(setting, home.module, lr=LR)
    home.step(setting, first, STEPS)
    given = first.state_dict()
    for ours, theirs in zip(given["param_groups"], optimizer.state_dict()["param_groups"], strict=True):
        ours["lr"] = theirs["lr"]
    problem.module.load_state_dict(home.module.state_dict())
    optimizer.load_state_dict(given)
    for step in range(steps):
        problem.step(setting, optimizer, step)
    return problem, optimizer


def _elsewhere(optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of state that lies on another device than it should."""
    found = set()
    for parameter, state in optimizer.state.items():
        for name, tensor in state.items():
            place = torch.device("cpu") if name in _AT_HOME else parameter.device
            if tensor.device != place:
                found.add(f"{name} on {tensor.device}")
    return sorted(found)


def _words(found: dict[str, Any]) -> str:
    gaps = [
        f"{name} drawn on the device" if found[name] is None else f"{name} {found[name]:.1e}"
        for name in ("float64", "float32", "lr as a tensor")
    ]
    return ", ".join([*gaps, *(f"STATE {each}" for each in found["elsewhere"])])
