"""Whether the gated delta rule may go to the kernel of `fla-core`, asked without one."""

from __future__ import annotations

import pytest
import torch

from nestlearn.ops import fused


@pytest.mark.parametrize(
    ("capability", "triton", "tilelang", "expected"),
    [
        ((9, 0), "3.6.0", False, False),  # wrong results, refused by fla-core itself
        ((9, 0), "3.4.0+git1", False, False),
        ((9, 0), "3.7.0", False, False),
        ((9, 0), "3.7.1", False, True),
        ((9, 0), "3.3.1", False, True),
        ((9, 0), "3.6.0", True, True),
        ((8, 0), "3.6.0", False, True),
    ],
)
def test_a_kernel_that_cannot_be_differentiated_is_not_used(
    capability: tuple[int, int], triton: str, tilelang: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(fused, "version", lambda name: triton)
    monkeypatch.setattr(fused, "find_spec", lambda name: object() if tilelang else None)
    fused._has_slopes.cache_clear()
    assert fused._has_slopes(torch.device("cuda", 0)) is expected
    fused._has_slopes.cache_clear()


def test_tensors_on_a_cpu_stay_with_our_own_form() -> None:
    assert not fused.is_fused(torch.zeros(1, dtype=torch.bfloat16))
