"""Tensors in a file that says what they are, and carries a checksum of all of it (safetensors).

What a text has written is kept so, into a model of ours (``state_files``) or a pretrained one (``stacking_files``).
Files are written whole or not at all; one that was changed after it was written is refused.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from nestlearn.errors import MissingPackageError, StateFileError
from nestlearn.files import write_atomic
from nestlearn.foreign import foreign, printable, regular, shown

__all__ = ["LATEST", "check_numbers", "differing", "digest", "read_tensors", "state_sum", "write_tensors"]

LATEST = 1 << 53  # tokens that nobody has read
LARGEST = 1e12  # what no memory comes to; the products of such numbers are still finite
MOST_DIFFERING = 1000  # characters of what differs between two architectures


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    check: Callable[[Mapping[str, torch.Tensor]], None],
) -> None:
    """Write tensors of the CPU to ``path``, in the place of what was there.

    Args:
        path: of the file.
        tensors: by name.
        metadata: what they are, with a "format"; the checksum is added.
        check: raises if these are not what is to be kept.

    Raises:
        StateFileError: it does.
        MissingPackageError: safetensors is not installed.
        OSError: it cannot be written; what was there is left.
    """
    library = _safetensors()
    with foreign(StateFileError, f"the state is not written to {path}"):
        check(tensors)
    held = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomic(Path(path), library.torch.save(held, {**metadata, "sha256": state_sum(held, metadata)}))


def read_tensors(
    path: str | os.PathLike[str], expected: str, without_sum: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors in ``path``, and what it says of them.

    Args:
        path: as ``write_tensors`` wrote it.
        expected: the format.
        without_sum: one from before there was a checksum.

    Raises:
        StateFileError: it cannot be read, is of another format, or was changed after it was written.
        MissingPackageError: safetensors is not installed.
    """
    library = _safetensors()
    with foreign(StateFileError, f"cannot read the state {path}"):
        regular(path)
        with library.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    found = metadata.get("format")
    if found is None or found not in (expected, without_sum):
        raise StateFileError(f"{path} is not a state: expected the format {expected!r}, got {shown(found)}")
    if metadata.pop("sha256", None) != state_sum(tensors, metadata) and found == expected:
        raise StateFileError(f"the state {path} is broken: it was changed after it was written")
    return tensors, metadata


def state_sum(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """The sha256 of names, types, shapes and numbers, and of what the metadata say."""
    found = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Sixteen digits of weights."""
    found = hashlib.sha256()
    for name, tensor in weights.items():
        found.update(name.encode())
        found.update(_bytes(tensor.detach().cpu().contiguous()))
    return found.hexdigest()[:16]


def check_numbers(name: str, tensor: torch.Tensor, above: int = LATEST) -> None:
    """Raise ValueError unless real numbers are finite and not too large, and whole ones from 0 to below ``above``."""
    if not tensor.numel():
        return
    low, high = tensor.min().item(), tensor.max().item()
    if not tensor.is_floating_point():
        if low < 0 or high >= above:
            raise ValueError(f"{name}: expected 0 to {above - 1}, got {low} to {high}")
    elif not torch.isfinite(tensor).all():
        raise ValueError(f"{name}: a number in it is not finite")
    elif max(-low, high) > LARGEST:
        raise ValueError(f"{name}: expected numbers up to {LARGEST:g}, got {low:g} to {high:g}")


def differing(expected: Any, came: Any) -> str:
    """Where two values, data as JSON holds it, differ, in words, of which there are not too many."""
    return printable("; ".join(_differing(expected, came, "")), MOST_DIFFERING)


def _differing(expected: Any, came: Any, name: str) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(came, dict):
        for key in sorted({*expected, *came}):
            yield from _differing(expected.get(key), came.get(key), f"{name}.{key}" if name else key)
    elif isinstance(expected, list) and isinstance(came, list) and len(expected) == len(came):
        for place, pair in enumerate(zip(expected, came, strict=True)):
            yield from _differing(*pair, f"{name}[{place}]")
    elif expected != came:
        one, two = ("nothing" if value is None else printable(json.dumps(value)) for value in (expected, came))
        yield f"{name}: expected {one}, got {two}"


def _bytes(tensor: torch.Tensor) -> bytes:
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes)


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'states are kept in safetensors files; {error.name} is not installed: pip install "nestlearn[cli]"',
            name=error.name,
        ) from error
    return safetensors
