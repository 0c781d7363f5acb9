"""Where two nested structures of tensors, numbers and strings differ, bit for bit."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

__all__ = ["differences"]


def differences(one: Any, two: Any, where: str = "", ignore: tuple[str, ...] = ()) -> list[str]:
    """The paths at which ``one`` and ``two`` differ; keys in ``ignore`` are not looked at. NaN equals NaN."""
    return list(_walk(one, two, where or "it", frozenset(ignore)))


def _walk(one: Any, two: Any, where: str, ignore: frozenset[str]) -> Iterator[str]:
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        same = one.dtype == two.dtype and torch.equal(one.isnan(), two.isnan())
        if not same or not torch.equal(one.nan_to_num(), two.nan_to_num()):
            yield where
    elif isinstance(one, Mapping) and isinstance(two, Mapping):
        for key in [*one, *(key for key in two if key not in one)]:
            if key in ignore:
                continue
            if key not in one or key not in two:
                yield f"{where}.{key} (in one of them only)"
            else:
                yield from _walk(one[key], two[key], f"{where}.{key}", ignore)
    elif isinstance(one, list | tuple) and isinstance(two, list | tuple):
        if len(one) != len(two):
            yield f"{where} (lengths {len(one)} and {len(two)})"
        for index, pair in enumerate(zip(one, two, strict=False)):
            yield from _walk(*pair, f"{where}[{index}]", ignore)
    elif type(one) is not type(two) or not (one == two or (one != one and two != two)):
        yield f"{where} ({one!r} and {two!r})"
