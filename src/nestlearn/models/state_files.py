"""Memories on disk: what a model has read in its texts, apart from its weights (safetensors).

A file holds the tensors of a state under dotted names ("parts.0.memory.model.weight") and says in its metadata which
architecture and which weights they belong to, and the sha256 of all of it. A memory means nothing to other weights, so
these are an error unless they are asked for. Files are written whole or not at all, and read only if every number in
them is one that such a state can have.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping

import torch

from nestlearn.errors import StateFileError
from nestlearn.foreign import foreign, parse_json, shown
from nestlearn.memory.state import State, flatten, unflatten
from nestlearn.models.language_model import LanguageModel
from nestlearn.models.tensor_files import LATEST, check_numbers, differing, digest, read_tensors, write_tensors

__all__ = ["StateFileError", "load_state", "save_state"]

FORMAT = "nestlearn state 2"
WITHOUT_SUM = "nestlearn state 1"  # as it was written before there was a checksum


def save_state(state: State, path: str | os.PathLike[str], model: LanguageModel) -> None:
    """Write a state of ``model`` to ``path``, in the place of what was there.

    Raises:
        StateFileError: a number in it is not finite, or no state has it; what was there is left.
        MissingPackageError: safetensors is not installed.
        OSError: it cannot be written; what was there is left.
    """
    flat = flatten(state, empty=torch.empty(0))
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in flat.items()}
    weights = digest(model.state_dict())
    metadata = {"format": FORMAT, "architecture": json.dumps(model.config), "weights": weights}
    write_tensors(path, tensors, metadata, lambda held: _check(held, model))


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
    tensors, metadata = read_tensors(path, FORMAT, WITHOUT_SUM)
    with foreign(StateFileError, f"{path} is not a state"):
        other, weights = parse_json(metadata["architecture"]), metadata["weights"]
    if other != model.config:
        where = differing(model.config, other)
        raise StateFileError(f"the state {path} belongs to a model of another architecture: {where}")
    if weights != (here := digest(model.state_dict())) and not other_weights:
        raise StateFileError(
            f"the state {path} was made with other weights: expected {here}, got {shown(weights)}. What a memory "
            "holds means little to other weights; pass other_weights=True to use it anyway."
        )
    with foreign(StateFileError, f"{path} holds what no state of this model is"):
        _check(tensors, model)
    device = model.embedding.weight.device
    state = unflatten(
        {name: tensor if name.endswith("time") else tensor.to(device) for name, tensor in tensors.items()}
    )
    found = {len(tensor) for name, tensor in tensors.items() if tensor.ndim and not name.endswith(".")}
    if batch_size is not None and found != {batch_size}:
        raise StateFileError(f"expected the state of {batch_size} sequences in {path}, got {sorted(found)}")
    return state


def _check(tensors: Mapping[str, torch.Tensor], model: LanguageModel) -> None:
    """Raise ValueError unless these could be a state of the model: its names, shapes and kinds of numbers, all finite,
    and one time, at which something can have been read, for all sequences or for each.

    What grows with the text (the keys and values of attention) has a size of 0 before it, and a time of its own where
    sequences have seen unequal numbers of tokens.
    """
    counts = [len(tensor) for name, tensor in tensors.items() if tensor.ndim and not name.endswith(".")]
    batch = counts[0] if counts else 1
    expected = _expected(tensors, model)
    if tensors.keys() != expected.keys():
        name = min(tensors.keys() ^ expected.keys())
        raise ValueError(f"{'it lacks ' if name in expected else 'nothing is called '}{shown(name)}")
    grown: dict[str, set[int]] = defaultdict(set)
    times: dict[str, list[torch.Tensor]] = defaultdict(list)
    for name, tensor in tensors.items():
        like, part = expected[name], name.split(".")[0]  # what is read again later is of another time
        for_each = name.split(".")[-1] == "time" and tensor.shape == (batch,)
        if tensor.is_floating_point() != like.is_floating_point() or (tensor.ndim != like.ndim and not for_each):
            raise ValueError(f"{name}: expected {list(like.shape)} of {like.dtype}, got {list(tensor.shape)}")
        for place, (size, usual) in enumerate(zip(tensor.shape, like.shape, strict=not for_each)):
            if usual == 0 and place > 0:
                grown[name if like.dtype == torch.int64 else part].add(size)
            elif size != (batch if place == 0 and not name.endswith(".") else usual):
                raise ValueError(f"{name}: expected {list(like.shape)} for each sequence, got {list(tensor.shape)}")
        check_numbers(name, tensor, model.vocab_size if name.split(".")[-1] == "tokens" else LATEST)
        if name.split(".")[-1] == "time":
            times[part].append(tensor.expand(batch))
    if any(len(sizes) > 1 for sizes in grown.values()) or any(
        not torch.equal(each, found[0]) for found in times.values() for each in found
    ):
        raise ValueError("its parts are not of one time")


def _expected(tensors: Mapping[str, torch.Tensor], model: LanguageModel) -> dict[str, torch.Tensor]:
    """A state of one sequence before its first token, with a time where attention may keep one."""
    expected = flatten(model.initial_state(1), empty=torch.empty(0))
    for name in tensors.keys() - expected.keys():
        path, _, last = name.rpartition(".")
        if last == "time" and tensors[name].ndim and expected.get(f"{path}.key", tensors[name]).shape[2:3] == (0,):
            expected[name] = torch.zeros((), dtype=torch.int64)
    return expected
