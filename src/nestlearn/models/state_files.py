"""Memories on disk: what a model has read in its texts, apart from its weights (safetensors).

A file holds the tensors of a state under dotted names ("parts.0.memory.model.weight") and says in its metadata which
architecture and which weights they belong to. A memory means nothing to other weights, so these are an error unless
they are asked for. Files are written whole or not at all.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nestlearn.errors import MissingPackageError, StateFileError
from nestlearn.memory.state import State, flatten, unflatten
from nestlearn.models.language_model import LanguageModel

__all__ = ["StateFileError", "load_state", "save_state"]

FORMAT = "nestlearn state 1"


def save_state(state: State, path: str | os.PathLike[str], model: LanguageModel) -> None:
    """Write a state of ``model`` to ``path``, in the place of what was there.

    Raises:
        MissingPackageError: safetensors is not installed.
    """
    save_file = _safetensors().save_file
    flat = flatten(state, empty=torch.empty(0))
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in flat.items()}
    metadata = {"format": FORMAT, "architecture": json.dumps(model.config), "weights": _digest(model)}
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    save_file(tensors, partial, metadata)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_state(
    path: str | os.PathLike[str], model: LanguageModel, *, batch_size: int | None = None, other_weights: bool = False
) -> State:
    """The state in ``path``, on the device of ``model``.

    Args:
        path: as ``save_state`` wrote it.
        model: of the architecture, and with the weights, with which the state was made.
        batch_size: how many sequences are expected; None takes any number.
        other_weights: allow a state that was made with other weights of this architecture.

    Raises:
        StateFileError: it cannot be read, or does not fit; the message says why.
        MissingPackageError: safetensors is not installed.
    """
    library = _safetensors()
    try:
        with library.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, library.SafetensorError) as error:
        raise StateFileError(f"cannot read the state {path}: {error}") from error
    if metadata.get("format") != FORMAT:
        raise StateFileError(f"{path} is not a state: expected the format {FORMAT!r}, got {metadata.get('format')!r}")
    if (other := json.loads(metadata["architecture"])) != model.config:
        raise StateFileError(
            f"the state {path} belongs to a model of another architecture: {'; '.join(_differing(model.config, other))}"
        )
    if metadata["weights"] != (here := _digest(model)) and not other_weights:
        raise StateFileError(
            f"the state {path} was made with other weights: expected {here}, got {metadata['weights']}. What a memory "
            "holds means little to other weights; pass other_weights=True to use it anyway."
        )
    device = model.embedding.weight.device
    state = unflatten(
        {name: tensor if name.endswith("time") else tensor.to(device) for name, tensor in tensors.items()}
    )
    found = {len(tensor) for name, tensor in tensors.items() if tensor.ndim and not name.endswith(".")}
    if batch_size is not None and found != {batch_size}:
        raise StateFileError(f"expected the state of {batch_size} sequences in {path}, got {sorted(found)}")
    return state


def _differing(expected: Any, came: Any, name: str = "") -> Iterator[str]:
    """Where two configurations, data as JSON holds it, differ, in words."""
    if isinstance(expected, dict) and isinstance(came, dict):
        for key in sorted({*expected, *came}):
            yield from _differing(expected.get(key), came.get(key), f"{name}.{key}" if name else key)
    elif isinstance(expected, list) and isinstance(came, list) and len(expected) == len(came):
        for place, pair in enumerate(zip(expected, came, strict=True)):
            yield from _differing(*pair, f"{name}[{place}]")
    elif expected != came:
        shown = ("nothing" if value is None else json.dumps(value) for value in (expected, came))
        yield f"{name}: expected {next(shown)}, got {next(shown)}"


def _safetensors() -> Any:
    """The parts of the library that are used here, under one roof."""
    try:
        import safetensors
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'states are kept in safetensors files; {error.name} is not installed: pip install "nestlearn[cli]"',
            name=error.name,
        ) from error

    class Library:
        safe_open, SafetensorError = safetensors.safe_open, safetensors.SafetensorError
        save_file = staticmethod(safetensors.torch.save_file)

    return Library


def _digest(model: LanguageModel) -> str:
    """Sixteen digits of the weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        tensor = tensor.detach().cpu().contiguous()
        digest.update(ctypes.string_at(tensor.data_ptr(), tensor.nbytes))
    return digest.hexdigest()[:16]
