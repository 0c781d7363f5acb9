"""Products of matrices in the precision that ``nestlearn.precision`` chooses; symmetric ones at 5/8 of their price."""

import torch
from torch import Tensor

from nestlearn.device import device_of
from nestlearn.precision import product_dtype

__all__ = ["BLOCK", "gram", "product", "symmetric_product"]

BLOCK = 256
"""Rows a block of a symmetric product on a CPU: smaller ones lose more speed than multiplications."""


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` in the dtype that both have, multiplied in that of products.

    Args:
        left: `[*batch, n, k]`.
        right: `[*batch, k, m]`.
    """
    dtype = product_dtype(left)
    return (left.to(dtype) @ right.to(dtype)).to(left.dtype)


def gram(rows: Tensor) -> Tensor:
    """``rows @ rows.mT``, multiplied in the dtype of products: `[*batch, n, k]` -> `[*batch, n, n]`."""
    x = rows.to(product_dtype(rows)).reshape(rows.shape[:-2].numel(), *rows.shape[-2:])
    out = x.new_empty(len(x), x.shape[-2], x.shape[-2])
    symmetric_product(x, x.mT, out)
    return out.to(rows.dtype).reshape(*rows.shape[:-1], rows.shape[-2])


def symmetric_product(
    left: Tensor, right: Tensor, out: Tensor, add: Tensor | None = None, beta: float = 0.0, alpha: float = 1.0
) -> None:
    """out <- beta add + alpha left right `[b, k, k]`, known to be symmetric: rows up to the diagonal, then mirrored.

    In four blocks this takes 5/8 of the multiplications. Only single large matrices on a CPU are worth it, and not in
    bfloat16: where that is multiplied natively, copying takes longer than the multiplications that are saved.
    """
    side = out.shape[-1]
    if device_of(out).type != "cpu" or out.dtype == torch.bfloat16 or side < 2 * BLOCK or len(out) > 1:
        if add is None:
            torch.bmm(left, right, out=out)
        else:
            torch.baddbmm(add, left, right, beta=beta, alpha=alpha, out=out)
        return
    left, right, out = left[0], right[0], out[0]
    for start in range(0, side, BLOCK):
        stop = min(start + BLOCK, side)
        rows = out[start:stop, :stop]
        if add is None:
            torch.mm(left[start:stop], right[:, :stop], out=rows)
        else:
            torch.addmm(add[0, start:stop, :stop], left[start:stop], right[:, :stop], beta=beta, alpha=alpha, out=rows)
        if start:  # transposing between contiguous buffers is several times faster than writing across rows
            lower = rows[:, :start].contiguous()
            out[:start, start:stop] = lower.new_empty(start, stop - start).copy_(lower.mT)
