"""What a run keeps of its language model, so that it generates anywhere, without the task and without its data.

    model.json         {"format": "nestlearn model 1", "kind": "LanguageModel", "config": {...}}
    tokenizer.json     a copy of the file that the model's attribute ``tokenizer`` names, if it names one

Architecture and vocabulary are data; the weights are those of the checkpoints. A network whose class says more than its
``config`` does keeps neither file, and is made by its task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType, MappingProxyType

import torch
from torch import Tensor, nn

from nestlearn.errors import RunFolderError
from nestlearn.foreign import foreign, read_json
from nestlearn.models import LanguageModel
from nestlearn.tasks.networks import ByteTransformer
from nestlearn.training.run_folder import write_atomic

__all__ = ["Generator", "keep", "keeps_model", "kept_model", "kept_tokenizer"]

FORMAT = "nestlearn model 1"
MODEL, TOKENIZER = "model.json", "tokenizer.json"
Generator = LanguageModel | ByteTransformer
KINDS: Mapping[str, type[Generator]] = MappingProxyType(
    {kind.__name__: kind for kind in (LanguageModel, ByteTransformer)}
)


def keep(folder: Path, model: nn.Module) -> None:
    """Write what is to be known of a language model into a run folder; of other networks nothing.

    Raises:
        RunFolderError: the tokenizer that the model names cannot be read.
    """
    if not isinstance(model, Generator) or not _says_all(model):
        return
    path = getattr(model, "tokenizer", None)
    if path is not None:
        try:
            write_atomic(folder / TOKENIZER, Path(path).expanduser().read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RunFolderError(f"cannot keep the tokenizer {path} with the run: {error}") from error
    content = {"format": FORMAT, "kind": _kind(model).__name__, "config": model.config}
    write_atomic(folder / MODEL, json.dumps(content, indent=1) + "\n")


def keeps_model(folder: Path) -> bool:
    """Whether a run folder keeps a language model."""
    return (folder / MODEL).is_file()


def _kind(model: Generator) -> type[Generator]:
    return LanguageModel if isinstance(model, LanguageModel) else ByteTransformer


def _says_all(model: Generator) -> bool:
    """Whether its class, made with ``config``, is the model but for its weights: no method or tensor is another's."""
    kind = _kind(model)
    methods = {name: method for name, method in vars(kind).items() if isinstance(method, FunctionType)}
    if any(getattr(type(model), name) is not method for name, method in methods.items() if name != "__init__"):
        return False
    with torch.device("meta"):
        same = kind(**model.config).state_dict()
    own = model.state_dict()
    return {name: tensor.shape for name, tensor in own.items()} == {name: tensor.shape for name, tensor in same.items()}


def kept_model(folder: Path, weights: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> Generator | None:
    """The language model that a run folder keeps, with weights out of a checkpoint; None if it keeps none.

    Raises:
        RunFolderError: what it keeps is broken.
        RuntimeError: the weights are those of another model.
    """
    path = folder / MODEL
    if not path.exists():
        return None
    content = read_json(path, RunFolderError)
    if content.get("format") != FORMAT or str(content.get("kind")) not in KINDS:
        raise RunFolderError(f"{path} is not what `nestlearn train` writes. {_remedy()}")
    kind, config = KINDS[content["kind"]], content.get("config")
    with foreign(RunFolderError, f"{path} says no architecture; {_remedy()} What is wrong"):
        if not isinstance(config, dict) or config.get("depth", 0) > len(weights):
            raise ValueError("expected the arguments of a network with blocks for all weights")
        with torch.device("meta"):
            outline = kind(**config)
    outline.load_state_dict(weights, assign=True)  # nothing is allocated before it is known that the weights fit
    model = kind(**config)
    model.load_state_dict(weights)
    return model.to(device=device, dtype=dtype)


def kept_tokenizer(folder: Path) -> Path | None:
    """The ``tokenizer.json`` in a run folder, if its tokens are those of one."""
    path = folder / TOKENIZER
    return path if path.is_file() else None


def _remedy() -> str:
    return "Put the file back, or remove it: the task is then asked for the network, with its data."
