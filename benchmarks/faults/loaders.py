"""Every loader of the library: a whole file for it, how to spoil that, and the one error that it may answer with."""

import hashlib
import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from benchmarks.faults.mutate import ODD, spoilt_bytes, spoilt_json, spoilt_value
from nestlearn.errors import CheckpointError, NestlearnError, RunFolderError, SettingsError, StateFileError
from nestlearn.models import add_continuum, load_state, load_tokenizer, save_state
from nestlearn.models.named import MODELS
from nestlearn.models.stacking_folder import add_from_file
from nestlearn.models.tensor_files import state_sum
from nestlearn.report import write_report
from nestlearn.report.systems import write_systems
from nestlearn.rules import average, chain, deep, gradient, parallel
from nestlearn.training import RunFolder, TrainRun, TrainSettings, load_trained, merge, read_settings, resolve_training

__all__ = ["LOADERS", "Loader"]

TENSORS = (torch.zeros(0), torch.full((2, 2), float("nan")), torch.zeros(3, dtype=torch.int8), torch.tensor(1 << 40))
NUMBERS = (-1, 7, 1 << 40, 1e30, 3e38, -3e38, 1e-40)
SETTINGS = (
    *("task=quadratic", "optimizer=DeepMomentum", "optimizer.hidden=4"),
    *("steps=20", "rows=10", "points=5", "checkpoint_every=10"),
)


@dataclass(frozen=True)
class Loader:
    """``prepare`` makes what is needed in a folder and returns a function that gives the loader one spoilt input."""

    prepare: Callable[[Path], Callable[[random.Random], None]]
    errors: tuple[type[Exception], ...]


def _run(place: Path) -> Path:
    """A small finished run."""
    path = place / "run"
    run = TrainRun(RunFolder(path), resolve_training(TrainSettings(), *SETTINGS))
    run.begin()
    run.run()
    write_systems(path)
    return path


def _config(place: Path) -> Callable[[random.Random], None]:
    path, data = place / "config.yaml", (_run(place) / "config.yaml").read_bytes()

    def once(draw: random.Random) -> None:
        if draw.random() < 0.5:
            path.write_bytes(spoilt_bytes(data, draw))
        else:
            path.write_text(yaml.dump(spoilt_value(yaml.safe_load(data), draw)), encoding="utf-8", errors="replace")
        resolve_training(TrainSettings(), read_settings(path))

    return once


def _assignment(place: Path) -> Callable[[random.Random], None]:
    whole = ("optimizer.retention=0.9", "task.hidden=64", "seeds=0..4", "steps=[1, 2]", "optimizer={name: Muon, lr: 1}")

    def once(draw: random.Random) -> None:
        text = spoilt_bytes(draw.choice(whole).encode(), draw).decode("utf-8", "surrogateescape")
        resolve_training(merge(TrainSettings(), text))

    return once


def _report(name: str, lines: bool = False) -> Callable[[Path], Callable[[random.Random], None]]:
    def prepare(place: Path) -> Callable[[random.Random], None]:
        path = _run(place)
        data = (path / name).read_bytes()

        def once(draw: random.Random) -> None:
            (path / name).write_bytes(spoilt_json(data, draw, lines))
            write_report(path)

        return once

    return prepare


def _checkpoint(place: Path) -> Callable[[random.Random], None]:
    path = _run(place)
    folder = path / "checkpoints"
    data = max(folder.iterdir()).read_bytes()
    content = torch.load(io.BytesIO(data), weights_only=True)

    def once(draw: random.Random) -> None:
        for file in folder.iterdir():
            file.unlink()
        if draw.random() < 0.5:
            made = spoilt_bytes(data, draw)
        else:
            file = io.BytesIO()
            torch.save(spoilt_value(content, draw, (*ODD, *TENSORS)), file)
            made = file.getvalue()
        digest = hashlib.sha256(made).hexdigest()[:16]  # its name is right, so only what it holds can be wrong
        (folder / f"seed0-step00000020-{digest}.pt").write_bytes(made)
        if draw.random() < 0.5:
            load_trained(path)
        else:
            _resume(path)

    return once


def _resume(path: Path) -> None:
    kept = {name: (path / name).read_bytes() for name in ("metrics.jsonl", "events.jsonl", "config.yaml")}
    try:
        run = TrainRun(RunFolder(path), TrainRun.settings_of(RunFolder(path)))
        run.begin(resume=True)
        (path / "metrics.jsonl").write_bytes(b"")
        run.run()
    finally:
        for name, bytes_ in kept.items():
            (path / name).write_bytes(bytes_)


def _resumed(name: str) -> Callable[[Path], Callable[[random.Random], None]]:
    """A folder whose rows or settings are spoilt, continued."""

    def prepare(place: Path) -> Callable[[random.Random], None]:
        path = _run(place)
        kept = {file: (path / file).read_bytes() for file in ("metrics.jsonl", "events.jsonl", "config.yaml")}

        def once(draw: random.Random) -> None:
            for file, data in kept.items():
                (path / file).write_bytes(data)
            (path / name).write_bytes(spoilt_bytes(kept[name], draw))
            run = TrainRun(RunFolder(path), TrainRun.settings_of(RunFolder(path)))
            run.begin(resume=True)
            run.run()
            if RunFolder(path).rows().damaged:
                raise AssertionError("a run that was continued is damaged")

        return once

    return prepare


def _state(place: Path) -> Callable[[random.Random], None]:
    torch.manual_seed(0)
    model, path = MODELS["hope"](17, 16, 1, 2, periods=(4, 8)), place / "state"
    whole = model(torch.randint(17, (1, 9)), return_state=True)[1]
    save_state(whole, path, model)
    question = torch.arange(5)[None]
    return _memory(path, lambda: model(question, state=load_state(path, model)))


def _continuum(place: Path) -> Callable[[random.Random], None]:
    torch.manual_seed(0)
    path = place / "state"
    continuum = add_continuum(_Speaker(), blocks=2, periods=4)
    continuum.read(torch.randint(17, (1, 9)))
    continuum.save(path)
    question = torch.arange(5)[None]

    def asked() -> Tensor:
        continuum.load(path)
        return continuum.read(question)

    return _memory(path, asked)


class _Answer(dict[str, Any]):
    """What a model of transformers answers, as far as it is looked at."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


class _Speaker(nn.Module):
    """Two blocks of a language model as those of transformers are built, without the rest of it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(17, 8), nn.Linear(8, 17)
        self.layers = nn.ModuleList(nn.Module() for _ in range(2))
        for layer in self.layers:
            layer.mlp = nn.Module()
            layer.mlp.down_proj = nn.Linear(8, 8)
        self.requires_grad_(False).eval()

    def forward(self, input_ids: Tensor, use_cache: bool | None = None, cache: Any = None) -> _Answer:
        found = self.embedding(input_ids)
        for layer in self.layers:
            found = found + layer.mlp.down_proj(found.tanh())
        return _Answer(logits=self.head(found))


def _stacked(place: Path) -> Callable[[random.Random], None]:
    torch.manual_seed(0)
    path, model = place / "continuum.json", _Speaker()
    rule = chain(average(0.9, nesterov=True), parallel(deep(hidden=3), gradient(), weights=(0.5, 0.5)))
    continuum = add_continuum(model, blocks=2, periods=(4, 8), rank=3, writer=rule)
    settings = continuum.settings
    continuum.remove()

    def once(draw: random.Random) -> None:
        if draw.random() < 0.5:
            in_words = draw.random() < 0.5
            said = spoilt_bytes(repr(rule).encode(), draw).decode("utf-8", "replace") if in_words else None
            spoilt = {**settings, "writer": said or spoilt_value(settings["writer"], draw)}
            path.write_text(json.dumps(spoilt), encoding="utf-8")
        else:
            path.write_bytes(spoilt_json(json.dumps(settings).encode(), draw))
        continuum = add_from_file(model, path)
        try:
            continuum.read(torch.arange(9)[None])
        finally:
            continuum.remove()

    return once


def _memory(path: Path, ask: Callable[[], Tensor]) -> Callable[[random.Random], None]:
    """Spoil a file of tensors from which ``ask`` loads a memory, and asks it."""
    written = path.read_bytes()
    start = 8 + int.from_bytes(written[:8], "little")
    # safetensors writes what a file says of itself in an order that is another in each process.
    header: dict[str, Any] = dict(sorted(json.loads(written[8:start]).items()))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    data = _file(header, written[start:])
    path.write_bytes(data)
    answer = ask()

    def once(draw: random.Random) -> None:
        if draw.random() < 0.5:
            path.write_bytes(spoilt_bytes(data, draw))
        elif draw.random() < 0.5:
            path.write_bytes(_file(spoilt_value(header, draw), written[start:]))
        else:
            tensors = dict(sorted(load(data).items()))
            if draw.random() < 0.5:
                tensors = {name: draw.choice((tensor, *TENSORS)).clone() for name, tensor in tensors.items()}
            else:  # as many numbers of the same kind
                numbers = tensors[draw.choice([name for name, tensor in tensors.items() if tensor.numel()])].view(-1)
                kind = NUMBERS[:3] if numbers.dtype == torch.int64 else NUMBERS
                numbers[draw.randrange(len(numbers)) :: draw.choice((1, 1 << 20))] = draw.choice(kind)
            path.write_bytes(save(tensors, header["__metadata__"]))
        anew = draw.random() < 0.5 and _with_sum(path)
        found = ask()
        if not found.isfinite().all():
            raise AssertionError("a memory that gives no numbers was taken")
        if not (anew or torch.equal(found, answer)):
            raise AssertionError("another memory was taken for this one")

    return once


def _file(header: Any, content: bytes) -> bytes:
    """A file of safetensors."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


def _with_sum(path: Path) -> bool:
    """Put the right checksum into a spoilt file, so that only what it holds can be wrong; whether it can be read so
    far.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
        metadata.pop("sha256", None)
        path.write_bytes(save(tensors, metadata | {"sha256": state_sum(tensors, metadata)}))
    except Exception:  # noqa: BLE001 - it may hold anything
        return False
    return True


def _tokenizer(place: Path) -> Callable[[random.Random], None]:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    path = place / "tokenizer.json"
    vocabulary = {chr(97 + place): place for place in range(26)}
    Tokenizer(BPE(vocabulary, [])).save(str(path))
    data = path.read_bytes()

    def once(draw: random.Random) -> None:
        path.write_bytes(spoilt_json(data, draw))
        load_tokenizer(path)

    return once


LOADERS: Mapping[str, Loader] = MappingProxyType(
    {
        "config": Loader(_config, (SettingsError,)),
        "set": Loader(_assignment, (SettingsError,)),
        "metrics": Loader(_report("metrics.jsonl", lines=True), (RunFolderError,)),
        "events": Loader(_report("events.jsonl", lines=True), (RunFolderError,)),
        "results": Loader(_report("results.json"), (RunFolderError,)),
        "systems": Loader(_report("systems.json"), (RunFolderError,)),
        "environment": Loader(_report("environment.json"), (RunFolderError,)),
        "checkpoint": Loader(_checkpoint, (CheckpointError, RunFolderError)),
        "resumed-rows": Loader(_resumed("metrics.jsonl"), (NestlearnError,)),
        "resumed-config": Loader(_resumed("config.yaml"), (NestlearnError,)),
        "state": Loader(_state, (StateFileError,)),
        "continuum": Loader(_continuum, (StateFileError,)),
        "stacked": Loader(_stacked, (SettingsError,)),
        "tokenizer": Loader(_tokenizer, (ValueError,)),
    }
)
