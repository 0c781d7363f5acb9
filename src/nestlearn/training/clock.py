"""The times of training steps, taken without making the host wait for the device.

On a CPU a mark is a reading of the clock. On CUDA it is an event on the stream, which is read later, when the losses
are read anyway: a step that waits for its own end would be slower than the one it measures.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from time import perf_counter
from typing import Any

import torch

__all__ = ["StepClock"]

KEPT = 4096  # medians are those of the latest steps, so that a long run does not collect a long list


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(first: Any, last: Any) -> float:
    taken: float = last - first if isinstance(first, float) else first.elapsed_time(last) / 1e3
    return taken


class StepClock:
    """Times whole steps, and the optimizer's part of each.

    Attributes:
        seconds: all steps so far, as of the last ``collect``.
    """

    def __init__(self, device: str) -> None:
        self.mark = _event if torch.device(device).type == "cuda" else perf_counter
        self.seconds = 0.0
        self._marks: list[tuple[Any, Any, Any]] = []
        self._steps: deque[float] = deque(maxlen=KEPT)
        self._optimizer: deque[float] = deque(maxlen=KEPT)

    def add(self, start: Any, before: Any, end: Any) -> None:
        """Note one step by its marks: its start, where the optimizer begins, its end."""
        self._marks.append((start, before, end))

    def collect(self) -> None:
        """Turn marks into seconds; waits for the device."""
        if self._marks and not isinstance(self._marks[-1][2], float):
            self._marks[-1][2].synchronize()
        for start, before, end in self._marks:
            whole = _seconds(start, end)
            self.seconds += whole
            self._steps.append(whole)
            self._optimizer.append(_seconds(before, end))
        self._marks.clear()

    @property
    def step_ms(self) -> float:
        """The median milliseconds of a step."""
        return 1e3 * median(self._steps or [0.0])

    @property
    def optimizer_ms(self) -> float:
        """The median milliseconds of the optimizer's part of a step."""
        return 1e3 * median(self._optimizer or [0.0])

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, as of the last ``collect``."""
        return {"seconds": self.seconds, "steps": list(self._steps), "optimizer": list(self._optimizer)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.seconds = state["seconds"]
        self._marks.clear()
        self._steps = deque(state["steps"], maxlen=KEPT)
        self._optimizer = deque(state["optimizer"], maxlen=KEPT)
