"""What a text has written into a pretrained model, on disk (safetensors)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch

from nestlearn.errors import StateFileError
from nestlearn.foreign import foreign, parse_json, shown
from nestlearn.memory.rules import Rule
from nestlearn.memory.state import State, flatten, unflatten
from nestlearn.memory.words import rule_words
from nestlearn.models.stacking_matrix import WrittenMatrix
from nestlearn.models.tensor_files import check_numbers, differing, digest, read_tensors, write_tensors
from nestlearn.rules import Link, to_data

__all__ = ["check_state", "read_file", "write_file"]

FORMAT = "nestlearn continuum 2"


def write_file(
    path: str | os.PathLike[str], state: State, matrices: Mapping[str, WrittenMatrix], writer: Link | Rule
) -> None:
    """Write a state to ``path``, whole or not at all, in the place of what was there."""
    tensors = {name: tensor.cpu() for name, tensor in flatten(state, empty=torch.empty(0)).items()}
    settings = json.dumps(_settings(matrices, writer))
    metadata = {"format": FORMAT, "settings": settings, "weights": _digest(matrices)}
    write_tensors(path, tensors, metadata, _check_numbers)


def read_file(path: str | os.PathLike[str], matrices: Mapping[str, WrittenMatrix], writer: Link | Rule) -> State:
    """The state in ``path``, on the CPU.

    Raises:
        StateFileError: it cannot be read, or belongs to other weights or settings.
    """
    tensors, metadata = read_tensors(path, FORMAT)
    with foreign(StateFileError, f"{path} is not a state"):
        settings, weights = parse_json(metadata["settings"]), metadata["weights"]
    if settings != (here := _settings(matrices, writer)):
        raise StateFileError(f"the state {path} was made with other settings: {differing(here, settings)}")
    if weights != (own := _digest(matrices)):
        raise StateFileError(f"the state {path} was made with other weights: expected {own}, got {shown(weights)}")
    with foreign(StateFileError, f"{path} holds what no state of this model is"):
        _check_numbers(tensors)
        state = unflatten(tensors)
        check_state(state, matrices)
    return state


def check_state(state: State, matrices: Mapping[str, WrittenMatrix]) -> None:
    """Raise ValueError unless a state has the names, shapes and types that one of these matrices has."""
    tensors = flatten(state, empty=torch.empty(0))
    batch = next((len(tensor) for name, tensor in tensors.items() if name.endswith("model.weight")), 1)
    expected = {"time": torch.tensor(0)}
    for path, matrix in matrices.items():
        expected |= flatten(matrix.form(batch), f"blocks.{path}.", empty=torch.empty(0))
    if tensors.keys() != expected.keys():
        name = min(tensors.keys() ^ expected.keys())
        raise ValueError(f"{'it lacks ' if name in expected else 'nothing is called '}{shown(name)}")
    for name, tensor in tensors.items():
        if (tensor.shape, tensor.dtype) != (expected[name].shape, expected[name].dtype):
            wanted = f"{list(expected[name].shape)} of {expected[name].dtype}"
            raise ValueError(f"{name}: expected {wanted}, got {list(tensor.shape)} of {tensor.dtype}")


def _check_numbers(tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        check_numbers(name, tensor)


def _settings(matrices: Mapping[str, WrittenMatrix], writer: Link | Rule) -> dict[str, Any]:
    """What the shape of a state, and its meaning, hang on, as every process says it."""
    rule = to_data(writer, functions=True) if isinstance(writer, Link) else rule_words(writer)
    return {"writer": rule, **{path: [matrix.period, *matrix.shape] for path, matrix in matrices.items()}}


def _digest(matrices: Mapping[str, WrittenMatrix]) -> str:
    """Of the weights that are written, and of the directions."""
    weights = {}
    for path, matrix in matrices.items():
        weights[path] = matrix.linear.weight
        if matrix.basis is not None:
            weights[f"{path} directions"] = matrix.basis
    return digest(weights)
