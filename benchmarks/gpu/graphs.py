"""Whether a step can be captured in a CUDA graph, and whether its replays are steps.

No promise is kept or broken here: a row is "ok" when the question is answered. Numbers that Python computes from the
time, such as bias corrections, are those of the captured step in every replay, so that later replays may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.problem import Problem, build, difference, fewer
from benchmarks.gpu.settings import SETTINGS, Setting

__all__ = ["row"]

WARM, REPLAYS, DRY = 4, 3, 2
"""Steps before and after the capture; a dry run has fewer."""

SAME = 1e-3
"""Of the largest movement of a weight: rounding, as a device may add up in another order."""


def row(device: str, number: int) -> dict[str, Any]:
    """Capture one step after some eager ones; compare replays with a twin that goes on eagerly."""
    setting = SETTINGS[number]
    (ours, iterate), (twin, follow) = _case(setting, device), _case(setting, device)
    _warm(iterate, device)
    _warm(follow, device)
    what = "forward, backward and step" if setting.model else "step"
    try:
        replay = _captured(iterate, device)
    except Exception as error:  # noqa: BLE001 - the error is the answer
        return {"captured": False, "what": what, "error": _causes(error), "note": f"not captured: {_causes(error)[0]}"}
    gaps = []
    for _ in range(fewer(device, REPLAYS, DRY)):
        before = twin.weights()
        replay()
        follow()
        moved = difference(twin.weights(), before)
        gaps.append(difference(ours.weights(), twin.weights()) / max(moved, 1e-30))
    equal = [gap <= SAME for gap in gaps]
    verdict = "equal to eager steps" if all(equal) else "only the first is right" if equal[0] else "other than steps"
    note = f"{what} captured; replays {verdict} ({', '.join(f'{gap:.0e}' for gap in gaps)} of a step)"
    # A step that a replay could not repeat refuses to be captured: whatever is captured has to be right.
    return {
        "status": "ok" if all(equal) else "wrong",
        "captured": True,
        "what": what,
        "replays": gaps,
        "equal": all(equal),
        "note": note,
    }


def _case(setting: Setting, device: str) -> tuple[Problem, Callable[[], object]]:
    """What is captured: the step with gradients that stay, or all of it where a layer has to be watched."""
    problem = Problem(device, torch.float32)
    optimizer = build(setting, problem.module, nonfinite="ignore")
    if not setting.model:
        problem.loss().backward()
        return problem, optimizer.step
    inputs, targets = _batch(problem)
    for parameter in problem.module.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def whole() -> None:
        for parameter in problem.module.parameters():
            parameter.grad.zero_()  # type: ignore[union-attr]
        (problem.module(inputs) - targets).square().mean().backward()
        optimizer.step()

    return problem, whole


def _batch(problem: Problem) -> tuple[Tensor, Tensor]:
    """On the device already: a graph reads the same memory at every replay."""
    first, last = problem.module[0], problem.module[-1]
    generator = torch.Generator().manual_seed(1000)
    sizes = (first.in_features, last.out_features)
    inputs, targets = (torch.randn(problem.rows, size, generator=generator).to(problem.device) for size in sizes)
    return inputs, targets


def _warm(iterate: Callable[[], object], device: str) -> None:
    """Before a capture all state exists; on a side stream, as capturing wants it."""
    if not device.startswith("cuda"):
        for _ in range(DRY):
            iterate()
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM):
            iterate()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()


def _captured(iterate: Callable[[], object], device: str) -> Callable[[], object]:
    """What replays a step; on a CPU, which has no graphs, the step itself."""
    if not device.startswith("cuda"):
        return iterate
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        iterate()
    return graph.replay


def _causes(error: BaseException) -> list[str]:
    """First lines, the first error first: ending a capture that failed is an error too."""
    found: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        lines = str(cause).strip().splitlines() or [""]
        found.insert(0, f"{type(cause).__name__}: {lines[0]}"[:200])
        cause = cause.__cause__ or cause.__context__
    return found
