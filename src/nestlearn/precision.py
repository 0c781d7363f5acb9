"""In which precision matrices are multiplied: where half the digits do, and where all of them are needed."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["no_autocast", "product_dtype"]


def no_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Where products keep the precision of their factors; the meta device, where there is nothing to cast, is fine."""
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)


def product_dtype(tensor: Tensor) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32; float64 stays float64.

    For iterations that correct themselves (Newton-Schulz) and for memories that learn online: on such devices the
    products take a quarter of the time or less, and what is accumulated stays in single precision.
    """
    if tensor.dtype == torch.float64:
        return torch.float64
    if tensor.device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # torch 2.10 has no public name for this yet.
        native = tensor.device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32
