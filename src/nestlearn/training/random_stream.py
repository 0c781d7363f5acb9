"""A run's own global random stream: dropout and the like draw from it, and nobody else's draws are disturbed."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor

__all__ = ["RandomStream"]


class RandomStream:
    """torch's global generators, seeded for one run and put in place by ``with``; nesting does nothing more.

    Args:
        seed: of the CPU's generator and the device's.
        device: of the run; a CUDA device has a generator of its own.
    """

    def __init__(self, seed: int, device: str) -> None:
        cuda = torch.device(device).type == "cuda"
        self._cuda = torch.device(device) if cuda else None
        self._depth = 0
        outside = self._now()
        torch.default_generator.manual_seed(seed)
        if self._cuda is not None:
            with torch.cuda.device(self._cuda):
                torch.cuda.manual_seed(seed)
        self._kept = self._now()
        self._put(outside)

    @property
    def inside(self) -> bool:
        """Whether the stream is in place now."""
        return self._depth > 0

    def __enter__(self) -> RandomStream:
        if not self.inside:
            self._exchange()
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self.inside:
            self._exchange()

    def state(self) -> list[Tensor]:
        """Where the stream is: a tensor of bytes for each generator."""
        return self._now() if self.inside else self._kept

    def load(self, state: list[Tensor]) -> None:
        """Go on from what ``state`` gave."""
        if self.inside:
            self._put(state)
        else:
            self._kept = state

    def _exchange(self) -> None:
        outside = self._now()
        self._put(self._kept)
        self._kept = outside

    def _now(self) -> list[Tensor]:
        found = [torch.get_rng_state()]
        return found if self._cuda is None else [*found, torch.cuda.get_rng_state(self._cuda)]

    def _put(self, state: list[Tensor]) -> None:
        torch.set_rng_state(state[0].cpu())
        if self._cuda is not None:
            torch.cuda.set_rng_state(state[1].cpu(), self._cuda)
