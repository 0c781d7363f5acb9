"""On which device a tensor is computed. A tensor on the meta device is computed nowhere: in a dry run it stands for one
on another device, and what depends on the device takes that one's path.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["device_of", "meta_stands_for"]

_META = torch.device("meta")
_stood_for: ContextVar[torch.device] = ContextVar("stood_for", default=_META)


def device_of(tensor: Tensor) -> torch.device:
    """The tensor's device; of a tensor on the meta device the one that it stands for."""
    return _stood_for.get() if tensor.is_meta else tensor.device


@contextmanager
def meta_stands_for(device: torch.device | str) -> Iterator[None]:
    """A block in which tensors on the meta device stand for tensors on `device`, for the present thread."""
    before = _stood_for.set(torch.device(device))
    try:
        yield
    finally:
        _stood_for.reset(before)
