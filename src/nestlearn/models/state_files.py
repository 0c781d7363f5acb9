"""Memories on disk: what a model has read in its texts, apart from its weights (safetensors).

A file holds the tensors of a state under dotted names ("parts.0.memory.model.weight") and says in its metadata which
architecture and which weights they belong to, and the sha256 of all of it. A memory means nothing to other weights, so
these are an error unless they are asked for. Files are written whole or not at all, and read only if every number in
them is one that such a state can have.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nestlearn.errors import MissingPackageError, StateFileError
from nestlearn.files import write_atomic
from nestlearn.foreign import foreign, parse_json, printable, regular, shown
from nestlearn.memory.state import State, flatten, unflatten
from nestlearn.models.language_model import LanguageModel

__all__ = ["StateFileError", "load_state", "save_state", "state_sum"]

FORMAT = "nestlearn state 2"
WITHOUT_SUM = "nestlearn state 1"  # as it was written before there was a checksum
LATEST = 1 << 53  # tokens that nobody has read
LARGEST = 1e12  # what no memory comes to; the products of such numbers are still finite
MOST_DIFFERING = 1000  # characters of what differs between two architectures


def save_state(state: State, path: str | os.PathLike[str], model: LanguageModel) -> None:
    """Write a state of ``model`` to ``path``, in the place of what was there.

    Raises:
        StateFileError: a number in it is not finite, or no state has it; what was there is left.
        MissingPackageError: safetensors is not installed.
        OSError: it cannot be written; what was there is left.
    """
    save = _safetensors().save
    flat = flatten(state, empty=torch.empty(0))
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in flat.items()}
    with foreign(StateFileError, f"the state is not written to {path}"):
        _check(tensors, model)
    metadata = {"format": FORMAT, "architecture": json.dumps(model.config), "weights": _digest(model)}
    path = Path(path)
    write_atomic(path, save(tensors, metadata | {"sha256": state_sum(tensors, metadata)}))


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
    with foreign(StateFileError, f"cannot read the state {path}"):
        regular(path)
        with library.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    if metadata.get("format") not in (FORMAT, WITHOUT_SUM):
        raise StateFileError(
            f"{path} is not a state: expected the format {FORMAT!r}, got {shown(metadata.get('format'))}"
        )
    if metadata.pop("sha256", None) != state_sum(tensors, metadata) and metadata["format"] == FORMAT:
        raise StateFileError(f"the state {path} is broken: it was changed after it was written")
    with foreign(StateFileError, f"{path} is not a state"):
        other, weights = parse_json(metadata["architecture"]), metadata["weights"]
    if other != model.config:
        differing = printable("; ".join(_differing(model.config, other)), MOST_DIFFERING)
        raise StateFileError(f"the state {path} belongs to a model of another architecture: {differing}")
    if weights != (here := _digest(model)) and not other_weights:
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


def _check(tensors: dict[str, torch.Tensor], model: LanguageModel) -> None:
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
        _check_numbers(name, tensor, model.vocab_size if name.split(".")[-1] == "tokens" else LATEST)
        if name.split(".")[-1] == "time":
            times[part].append(tensor.expand(batch))
    if any(len(sizes) > 1 for sizes in grown.values()) or any(
        not torch.equal(each, found[0]) for found in times.values() for each in found
    ):
        raise ValueError("its parts are not of one time")


def _check_numbers(name: str, tensor: torch.Tensor, above: int) -> None:
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


def _expected(tensors: dict[str, torch.Tensor], model: LanguageModel) -> dict[str, torch.Tensor]:
    """A state of one sequence before its first token, with a time where attention may keep one."""
    expected = flatten(model.initial_state(1), empty=torch.empty(0))
    for name in tensors.keys() - expected.keys():
        path, _, last = name.rpartition(".")
        if last == "time" and tensors[name].ndim and expected.get(f"{path}.key", tensors[name]).shape[2:3] == (0,):
            expected[name] = torch.zeros((), dtype=torch.int64)
    return expected


def state_sum(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    """The sha256 of names, types, shapes and numbers, and of what the metadata say."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: torch.Tensor) -> bytes:
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes)


def _differing(expected: Any, came: Any, name: str = "") -> Iterator[str]:
    """Where two configurations, data as JSON holds it, differ, in words."""
    if isinstance(expected, dict) and isinstance(came, dict):
        for key in sorted({*expected, *came}):
            yield from _differing(expected.get(key), came.get(key), f"{name}.{key}" if name else key)
    elif isinstance(expected, list) and isinstance(came, list) and len(expected) == len(came):
        for place, pair in enumerate(zip(expected, came, strict=True)):
            yield from _differing(*pair, f"{name}[{place}]")
    elif expected != came:
        one, two = ("nothing" if value is None else printable(json.dumps(value)) for value in (expected, came))
        yield f"{name}: expected {one}, got {two}"


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
        save = staticmethod(safetensors.torch.save)

    return Library


def _digest(model: LanguageModel) -> str:
    """Sixteen digits of the weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        tensor = tensor.detach().cpu().contiguous()
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]
