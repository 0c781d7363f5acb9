"""Stacked models out of folders: the model is one of transformers, and ``continuum.json`` says what was added to it."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nestlearn.errors import MissingPackageError, SettingsError
from nestlearn.foreign import foreign, shown
from nestlearn.models.stacking import add_continuum
from nestlearn.models.stacking_memory import Continuum
from nestlearn.models.stacking_settings import FILE, read_settings

__all__ = ["add_from_file", "load_stacked"]


def load_stacked(
    folder: str | os.PathLike[str], *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> tuple[Any, Any]:
    """The stacked model in a folder, with its ``model.continuum``, and its tokenizer, None if it has none.

    No text has begun. Everything comes out of the folder: nothing is downloaded, no code of it is run, and weights are
    safetensors.

    Args:
        folder: as ``Continuum.save_pretrained`` writes it, or one of transformers with a ``continuum.json`` of yours.
        device: where to put the model; None leaves it on the CPU.
        dtype: of its weights; None takes what the folder says.

    Raises:
        SettingsError: a file is missing or holds what it cannot, or the settings do not fit the model.
        MissingPackageError: transformers is not installed.

    Example:
        >>> model, tokenizer = nl.models.load_stacked("mine")  # doctest: +SKIP
        >>> losses = model.continuum.read(tokenizer(book, return_tensors="pt").input_ids)  # doctest: +SKIP
    """
    place = Path(folder)
    settings = read_settings(place / FILE)  # what is wrong with it is said before the weights are read
    if not (place / "config.json").is_file():
        raise SettingsError(f"{place} holds no model of transformers: expected a config.json beside {FILE}")
    if (place / "adapter_config.json").exists():  # it may name a model that lies elsewhere
        raise SettingsError(f"{place} holds an adapter: expected a whole model, as merge_and_unload() of peft makes it")
    library = _transformers()
    own = {"local_files_only": True, "trust_remote_code": False}
    with foreign(SettingsError, f"cannot load the model in {place}"):
        model, info = library.AutoModelForCausalLM.from_pretrained(
            place, dtype=dtype or "auto", use_safetensors=True, output_loading_info=True, **own
        )
        if missing := sorted(map(str, info["missing_keys"])):
            raise ValueError(f"it lacks the weights {shown(missing)}, which its config.json asks for")
        has = any(place.glob("tokenizer*")) or any(place.glob("vocab*"))  # else transformers may make up an empty one
        tokenizer = library.AutoTokenizer.from_pretrained(place, **own) if has else None
    model = (model if device is None else model.to(device)).eval()
    _add(model, settings, place / FILE)
    return model, tokenizer


def add_from_file(model: nn.Module, path: Path) -> Continuum:
    """``add_continuum`` with what a file says.

    Raises:
        SettingsError: the file is none, or its settings do not fit the model.
    """
    return _add(model, read_settings(path), path)


def _add(model: nn.Module, settings: dict[str, Any], path: Path) -> Continuum:
    with foreign(SettingsError, f"{path} does not fit the model"):
        continuum = add_continuum(model, **settings)
        try:
            for matrix in continuum.matrices.values():
                matrix.form(1)  # a rule says what it cannot do where it is given a shape
        except Exception:
            continuum.remove()
            raise
    return continuum


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            'a stacked model in a folder needs transformers: pip install "nestlearn[hf]"', name=error.name
        ) from error
