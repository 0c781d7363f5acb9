"""The gated delta rule through the CUDA kernel of `fla-core` where it is installed (S8).

Its convention is S <- exp(g) S, then S <- S + beta k (v - S^T k)^T, in half precision. With a = exp(g) this is
a S - a beta k (S^T k)^T + beta k v^T, so erasing b and writing w are beta = b / a and v = w / beta.
"""

import re
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor

__all__ = ["fused_delta_rule", "is_fused"]

_FLOOR = 1e-4
"""A smaller alpha counts as this: beta = eta / alpha has to stay a number of half precision."""


def is_fused(key: Tensor) -> bool:
    """Whether tensors like this one go to the kernel of `fla-core`: bfloat16 or float16 on a CUDA device."""
    half = key.dtype in (torch.bfloat16, torch.float16)
    return half and key.device.type == "cuda" and find_spec("fla") is not None and _has_slopes(key.device)


@lru_cache(maxsize=16)
def _has_slopes(device: torch.device) -> bool:
    """Whether the kernel can be differentiated: on Hopper, triton 3.4 to 3.7.0 compile it to wrong results, and
    `fla-core` refuses (its issue 640) unless tilelang is there.
    """
    if torch.cuda.get_device_capability(device)[0] != 9 or find_spec("tilelang") is not None:
        return True
    numbers = re.findall(r"\d+", version("triton"))[:3]
    return not (3, 4, 0) <= tuple(map(int, numbers)) < (3, 7, 1)


def fused_delta_rule(
    key: Tensor, value: Tensor, query: Tensor, eta: Tensor, alpha: Tensor, state: Tensor, strength: int
) -> tuple[Tensor, Tensor]:
    """S_t = a S (I - strength e k k^T / a) + e k v^T, read after the write; arguments as `is_fused` wants them.

    Args:
        key, query: [G, T, in] in half precision.
        value: [G, T, out] in half precision.
        eta, alpha: [G, T].
        state: S [G, in, out].
        strength: 1, or 2 where rule and objective both erase (S7).

    Returns:
        y [G, T, out] in half precision and S [G, in, out] in float32.
    """
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    alpha = alpha.float().clamp(min=_FLOOR)
    y, after = chunk_gated_delta_rule(
        query.unsqueeze(2),  # [batch, time, heads, dim]
        key.unsqueeze(2),
        (value * (alpha / strength).unsqueeze(-1).to(value.dtype)).unsqueeze(2),
        g=alpha.log().unsqueeze(2),
        beta=(strength * eta.float() / alpha).to(key.dtype).unsqueeze(2),
        scale=1.0,
        initial_state=state.float().unsqueeze(1),
        output_final_state=True,
    )
    return y.squeeze(2), after.squeeze(1)
