"""What a text has written into a pretrained model, on disk (safetensors)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nestlearn.errors import MissingPackageError, StateFileError
from nestlearn.files import write_atomic
from nestlearn.foreign import foreign, parse_json, regular, shown
from nestlearn.memory.state import State, flatten, unflatten
from nestlearn.models.stacking_matrix import WrittenMatrix

__all__ = ["read_file", "write_file"]

FORMAT = "nestlearn continuum 1"


def write_file(path: str | os.PathLike[str], state: State, matrices: Mapping[str, WrittenMatrix]) -> None:
    """Write a state to ``path``, whole or not at all, in the place of what was there."""
    flat = flatten(state, empty=torch.empty(0))
    with foreign(StateFileError, f"the state is not written to {path}"):
        _check(flat)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in flat.items()}
    metadata = {"format": FORMAT, "settings": json.dumps(_settings(matrices)), "weights": _digest(matrices)}
    write_atomic(Path(path), _safetensors().torch.save(tensors, metadata))


def read_file(path: str | os.PathLike[str], matrices: Mapping[str, WrittenMatrix]) -> State:
    """The state in ``path``, on the CPU.

    Raises:
        StateFileError: it cannot be read, or belongs to other weights or settings.
    """
    library = _safetensors()
    with foreign(StateFileError, f"cannot read the state {path}"):
        regular(path)
        with library.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    if metadata.get("format") != FORMAT:
        raise StateFileError(f"{path} is not a state: expected {FORMAT!r}, got {shown(metadata.get('format'))}")
    with foreign(StateFileError, f"{path} is not a state"):
        settings, weights = parse_json(metadata["settings"]), metadata["weights"]
    if settings != (here := json.loads(json.dumps(_settings(matrices)))):
        raise StateFileError(f"the state {path} was made with other settings: expected {here}, got {shown(settings)}")
    if weights != (own := _digest(matrices)):
        raise StateFileError(f"the state {path} was made with other weights: expected {own}, got {shown(weights)}")
    with foreign(StateFileError, f"{path} holds what no state of this model is"):
        _check(tensors)
        _fits(tensors, matrices)
    return unflatten(tensors)


def _fits(tensors: Mapping[str, torch.Tensor], matrices: Mapping[str, WrittenMatrix]) -> None:
    """Raise ValueError unless these have the names, shapes and types that a state of these matrices has."""
    batch = next(len(tensor) for name, tensor in tensors.items() if name.endswith("model.weight"))
    expected = {"time": torch.tensor(0)}
    for path, matrix in matrices.items():
        with torch.device("cpu"):
            expected |= flatten(matrix.fresh(batch), f"blocks.{path}.", empty=torch.empty(0))
    if tensors.keys() != expected.keys():
        raise ValueError(f"expected the names {sorted(expected)}, got {sorted(tensors)}")
    for name, tensor in tensors.items():
        if (tensor.shape, tensor.dtype) != (expected[name].shape, expected[name].dtype):
            wanted = f"{list(expected[name].shape)} of {expected[name].dtype}"
            raise ValueError(f"{name}: expected {wanted}, got {list(tensor.shape)} of {tensor.dtype}")


def _check(tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name}: a number in it is not finite")


def _settings(matrices: Mapping[str, WrittenMatrix]) -> dict[str, Any]:
    """What the shape of a state, and its meaning, hang on."""
    return {path: [matrix.period, *matrix.shape, repr(matrix.rule)] for path, matrix in matrices.items()}


def _digest(matrices: Mapping[str, WrittenMatrix]) -> str:
    """Sixteen digits of the weights that are written, and of the directions."""
    digest = hashlib.sha256()
    for path, matrix in matrices.items():
        digest.update(path.encode())
        for tensor in (matrix.linear.weight, matrix.basis):
            if tensor is not None:
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'states are kept in safetensors files; {error.name} is not installed: pip install "nestlearn[cli]"',
            name=error.name,
        ) from error
    return safetensors
