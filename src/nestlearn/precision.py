"""In which precision matrices are multiplied: where half the digits do, and where all of them are needed.

Half of the digits do for iterations that correct themselves (Newton-Schulz) and for memories that learn online. Where a
device multiplies bfloat16 natively they take it, as that needs a quarter of the time or less; so their last digits are
others than on another device. To have the same everywhere, the environment variable ``NESTLEARN_PRODUCTS`` (native,
float32 or bfloat16) chooses for a process, and ``products`` for a block.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor

from nestlearn.device import device_of
from nestlearn.errors import VariableError

__all__ = ["no_autocast", "product_dtype", "products"]

VARIABLE = "NESTLEARN_PRODUCTS"
CHOICES: dict[str, torch.dtype | None] = {"native": None, "float32": torch.float32, "bfloat16": torch.bfloat16}


def no_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Where products keep the precision of their factors; the meta device, where there is nothing to cast, is fine."""
    device = tensor.device.type  # asked first, as it is ten times quicker than a block of autocast
    on = not tensor.is_meta and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()


def product_dtype(tensor: Tensor) -> torch.dtype:
    """What was chosen, else bfloat16 where the device multiplies it natively and float32 elsewhere; float64 stays
    float64. What is accumulated stays in single precision.
    """
    if tensor.dtype == torch.float64:
        return torch.float64
    return _chosen.get(_OF_THE_PROCESS) or _native_dtype(device_of(tensor))


@contextmanager
def products(dtype: torch.dtype | None) -> Iterator[None]:
    """A block in which `product_dtype` is `dtype` on every device, for the present thread; None is the device's own.

    Raises:
        ValueError: for another dtype than float32 and bfloat16.
    """
    if dtype not in CHOICES.values():
        raise ValueError(f"products: expected torch.float32, torch.bfloat16 or None, got {dtype}")
    before = _chosen.set(dtype)
    try:
        yield
    finally:
        _chosen.reset(before)


def _native_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # torch 2.10 has no public name for this yet.
        native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def _from_environment() -> torch.dtype | None:
    given = os.environ.get(VARIABLE) or "native"
    if given not in CHOICES:
        raise VariableError(f"the environment variable {VARIABLE}: expected one of {', '.join(CHOICES)}, got {given!r}")
    return CHOICES[given]


_OF_THE_PROCESS = _from_environment()
_chosen: ContextVar[torch.dtype | None] = ContextVar("products")
