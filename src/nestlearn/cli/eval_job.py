"""What ``nestlearn eval`` does with its options: models out of folders, their scores, a table and a file."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import typer

from nestlearn.cli.ending import say
from nestlearn.errors import SettingsError, as_settings_error
from nestlearn.foreign import foreign
from nestlearn.imported import only
from nestlearn.integrations.evaluation import Score, evaluate, unigrams
from nestlearn.models import Continuum, load_stacked
from nestlearn.models.stacking_settings import FILE
from nestlearn.training import RunFolder, load_trained
from nestlearn.training.run_folder import write_atomic
from nestlearn.training.settings import find_device

__all__ = ["Asked", "eval_job"]

FINISHED = 0
UNIFORM, UNIGRAMS, FROZEN = "uniform", "unigrams", ", frozen"


@dataclass(frozen=True)
class Asked:
    """The tasks, and how they are asked."""

    tasks: tuple[str, ...]
    include: Path | None
    limit: int | None
    batch: int
    context: int

    def scores(self, model: Any, tokenizer: Any) -> list[Score]:
        """Of one model."""
        # A file is no place for the progress that lm-eval draws; what it has to say goes through logging.
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
            return evaluate(
                model,
                tokenizer,
                self.tasks,
                include=self.include,
                limit=self.limit,
                batch=self.batch,
                context=self.context,
            )


def eval_job(
    folders: Sequence[Path],
    asked: Asked,
    beside: bool,
    text: Path | None,
    state: Path | None,
    out: Path | None,
    seed: int | None,
    imports: tuple[str, ...],
    device: str | None,
) -> int:
    """Ask every model, print the table, write the file; returns the exit status.

    Args:
        folders: of the models.
        asked: the tasks.
        beside: whether the model that knows nothing is asked too, with the tokens of the first one.
        text: the file whose tokens a further model has counted, or None.
        state: the file of what the one stacked model has read, or None.
        out: the file, or None.
        seed: which run of a folder; None for its first.
        imports: modules that the folders may name.
        device: where to compute.
    """
    if out is not None and not out.absolute().parent.is_dir():
        raise SettingsError(f"cannot write {out}: there is no folder {out.absolute().parent}")
    said = "" if text is None else text.read_text(encoding="utf-8", errors="replace")
    _check_state(state, folders)
    found: dict[str, list[Score]] = {}
    words: list[Any] = []
    named = _names(folders)
    models = {name: str(folder) for name, folder in named.items()}
    for name, folder in named.items():
        with only(imports):
            model, tokenizer = _loaded(folder, seed, device)
        say(f"asking {name}")
        continuum = getattr(model, "continuum", None)
        with nullcontext() if state is None or continuum is None else _having_read(continuum, state):
            found[name] = asked.scores(model, tokenizer)
        if continuum is not None:
            continuum.remove()
            say(f"asking {name}{FROZEN}")
            found[name + FROZEN], models[name + FROZEN] = asked.scores(model, tokenizer), str(folder)
        words.append((tokenizer, model.config.vocab_size))
    tokenizer, tokens = words[0]
    once = torch.ones(tokens)
    if beside:
        found[UNIFORM] = asked.scores(unigrams(once), tokenizer)
    if text is not None:
        counts = torch.tensor(tokenizer(said, add_special_tokens=False)["input_ids"]).bincount(minlength=tokens)
        found[UNIGRAMS] = asked.scores(unigrams(counts + once), tokenizer)
    typer.echo(_table(found))
    if out is not None:
        content = {
            "tasks": asked.tasks,
            "limit": asked.limit,
            "context": asked.context,
            "versions": {name: version(name) for name in ("lm-eval", "transformers", "torch", "nestlearn")},
            "models": models,
            "state": None if state is None else str(state),
            "scores": {name: [asdict(score) for score in scores] for name, scores in found.items()},
        }
        write_atomic(out, json.dumps(content, indent=1) + "\n")
    return FINISHED


def _names(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by their last name, or whole where two end alike."""
    last = [folder.resolve().name for folder in folders]
    return {
        str(folder) if last.count(name) > 1 or name in (UNIFORM, UNIGRAMS) or name.endswith(FROZEN) else name: folder
        for name, folder in zip(last, folders, strict=True)
    }


def _is_run(folder: Path) -> bool:
    return RunFolder(folder).config.is_file()


def _is_stacked(folder: Path) -> bool:
    return not _is_run(folder) and (folder / FILE).exists()


def _check_state(state: Path | None, folders: Sequence[Path]) -> None:
    """A state is what one model has read, and others have no use for it."""
    if state is not None and not state.is_file():  # said before other models are asked for an hour
        raise SettingsError(f"--state: there is no file {state}")
    if state is not None and (count := sum(map(_is_stacked, folders))) != 1:
        raise SettingsError(
            f"--state is what one stacked model has read: expected one folder with a {FILE}, got {count}"
        )


@contextmanager
def _having_read(continuum: Continuum, state: Path) -> Iterator[None]:
    """In the block the model answers from what a file says that it has read."""
    continuum.load(state)
    if continuum.texts != 1:
        raise SettingsError(
            f"{state}: all questions are asked of one text, and {continuum.texts} were read side by side"
        )
    with continuum.paused():
        yield


def _loaded(folder: Path, seed: int | None, device: str | None) -> tuple[Any, Any]:
    """The model in a folder, and its tokenizer."""
    where = None if device is None else find_device(device)
    if _is_run(folder):
        trained = load_trained(folder, seed=seed, device=where)
        for note in trained.notes:
            say(f"note: {note}")
        ours = _ours()
        with as_settings_error(TypeError):
            return ours.NestlearnForCausalLM.from_run(trained), ours.tokenizer_of(trained.tokenizer)
    if not (folder / "config.json").is_file():
        raise SettingsError(
            f"{folder} holds no model: expected a folder of `nestlearn train`, which has a config.yaml, or one of "
            "transformers, which has a config.json"
        )
    _ours()  # from here on transformers knows our models
    transformers = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    if _is_stacked(folder):
        model, tokenizer = load_stacked(folder, device=where)
        if tokenizer is None:
            raise SettingsError(f"{folder} holds no tokenizer: expected one that its save_pretrained has put there")
        return model, tokenizer
    own = {"local_files_only": True, "trust_remote_code": False}  # by default it asks the terminal
    with foreign(SettingsError, f"cannot load the model in {folder}"):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **own)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **own)
    return model if where is None else model.to(where), tokenizer


def _ours() -> Any:
    return import_module("nestlearn.models.huggingface")


def _table(found: Mapping[str, Sequence[Score]]) -> str:
    """A line for each metric of each task, a column for each model."""
    scores = {name: {(each.task, each.metric): each for each in held} for name, held in found.items()}
    keys = list(dict.fromkeys(key for held in scores.values() for key in held))
    rows = [["task", "metric", "better", *scores]]
    for task, metric in keys:
        held = [scores[name].get((task, metric)) for name in scores]
        higher = next(each.higher for each in held if each is not None)
        rows.append([task, metric, "more" if higher else "less", *map(_shown, held)])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{wide}}" for cell, wide in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _shown(score: Score | None) -> str:
    if score is None:
        return "-"
    return f"{score.value:.4g}" + ("" if score.error is None else f" ± {score.error:.2g}")
