"""What a training run goes on from: the checkpoints, and the files beside them, which are checked against them.

A checkpoint holds all rows of its run, the settings, and the sha256 of both ``.jsonl`` files as they were. Where a file
is another now, because it is gone, was cut or was changed, it is set aside (``metrics.jsonl.broken``) and the rows are
written again from the checkpoints of all seeds: to the same bytes, since a row is written in one way only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nestlearn.errors import CheckpointError, SettingsError
from nestlearn.foreign import foreign, reason, regular, shown
from nestlearn.training.checkpoint import Checkpoints
from nestlearn.training.live_files import LiveFiles, length_of
from nestlearn.training.results import RunResult
from nestlearn.training.run_folder import RunFolder
from nestlearn.training.settings import merge, read_settings
from nestlearn.training.train_settings import IRRELEVANT, TrainSettings, changed_settings

__all__ = ["TakenUp", "content_of", "settings_of", "take_up"]

KEPT_APART = IRRELEVANT - {"seeds"}  # settings that a checkpoint does not hold
PIECE = 1 << 20


@dataclass
class TakenUp:
    """What there is to go on from.

    Attributes:
        settings: those of the checkpoints, which ``config.yaml`` may have lost.
        finished: the runs that are finished, by key.
        begun: keys of all runs of which there is a row.
        notes: what was found broken, and what was done about it.
        rewritten: whether the ``.jsonl`` files are made anew, from the checkpoints.
        contents: checkpoints that were loaded for this, by seed, with the notes about newer ones.
    """

    settings: TrainSettings
    finished: dict[str, RunResult] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    rewritten: bool = False
    contents: dict[int, tuple[dict[str, Any], list[str]]] = field(default_factory=dict)


def content_of(settings: TrainSettings, files: LiveFiles, training: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint holds, given the state of a training whose rows are in the files, which are synced."""
    return {
        "files": files.sync(),
        "settings": settings.model_dump(mode="json", exclude=KEPT_APART),
        "training": training,
    }


def settings_of(folder: RunFolder) -> TrainSettings:
    """The settings in the folder's ``config.yaml``, or if that is gone or broken, those in a checkpoint.

    Raises:
        SettingsError: they are those of a comparison; or they are broken, and no checkpoint has them.
        RunFolderError: there are no settings at all.
    """
    try:
        plain = read_settings(folder.config)
        kind = plain.get("kind")
        if kind == "compare":
            raise SettingsError(
                f"{folder.path} was written by `nestlearn {kind}`, not by `nestlearn train`: continue it "
                f"with nestlearn {kind} --resume {folder.path}"
            )
        return _merged(folder, plain)
    except SettingsError:
        kept: TrainSettings | None = next(_kept(folder), None)
        if kept is not None:
            return kept
        if not folder.config.exists():
            RunFolder.open(folder.path)  # says what is missing
        raise


def _merged(folder: RunFolder, plain: dict[str, Any]) -> TrainSettings:
    if plain.get("kind") != "train":
        raise SettingsError(f"{folder.config}: expected a field `kind`, as in `kind: train`")
    try:
        return merge(TrainSettings(), plain)
    except SettingsError as error:
        raise SettingsError(f"{folder.config}: {error}") from error


def _kept(folder: RunFolder) -> Iterator[TrainSettings]:
    """The settings in the checkpoints of the folder, one after the other."""
    names = {path.name.rpartition("-step")[0] for path in folder.checkpoints.glob("seed*-step*.pt")}
    for name in sorted(names):
        try:
            content, _ = Checkpoints(folder.checkpoints, name).newest()
            if content is not None and "settings" in content:
                yield _settings_in(content)
        except (CheckpointError, SettingsError):
            continue


def _settings_in(content: dict[str, Any]) -> TrainSettings:
    with foreign(CheckpointError, "a checkpoint holds no settings"):
        try:
            return merge(TrainSettings(), dict(content["settings"]))
        except SettingsError as error:
            raise CheckpointError(f"a checkpoint holds no settings: {error}") from error


def take_up(folder: RunFolder, settings: TrainSettings) -> TakenUp:
    """Look at what is in the folder, mend what can be mended, and say what was done.

    Args:
        settings: those with which the run is to go on.

    Raises:
        RunFolderError, OSError: a file cannot be read or written.
    """
    found = TakenUp(settings)
    seed, last = _last_checkpoint(folder, found)
    rows = folder.rows()
    found.begun = rows.begun
    if last is not None and not _fits(last, seed, rows.begun, found, folder):
        last = None  # whoever loads it says whose it is
    _note_broken_config(folder, found)
    wrong = "" if last is None else _unlike(folder, last)
    for file in (folder.metrics, folder.events):
        if not file.exists():
            file.touch()
            if last is None:
                found.notes.append(f"{file} is gone: it begins anew")
    keys = {seed: spec.key for seed, spec in zip(found.settings.seeds, found.settings.specs(), strict=True)}
    whole = {key: run for key, run in rows.runs.items() if key not in rows.damaged}
    checkpointed = [seed for seed in found.settings.seeds if Checkpoints(folder.checkpoints, f"seed{seed}").paths()]
    if not wrong and any(keys[seed] not in whole for seed in checkpointed[:-1]):
        wrong = "the line of a finished seed is not there"
    if not wrong and last is None and (rows.damaged or rows.broken):
        wrong = rows.notes[0]
    if wrong:
        found.notes.append(
            f"{folder.metrics.name} and {folder.events.name} are not what they were ({wrong}): they are written again "
            "from the checkpoints, and kept as they are with .broken behind their names"
        )
        _set_aside(folder)
        found.rewritten, found.begun = True, set()
        whole = {key: run for key, run in whole.items() if key in {keys[s] for s in keys if s not in checkpointed}}
        for run in whole.values():
            folder.add(run)
    else:
        found.notes += [note for note in rows.notes if "cut short" in note]
    found.finished = whole
    return found


def _last_checkpoint(folder: RunFolder, found: TakenUp) -> tuple[int, dict[str, Any] | None]:
    """The last seed that has a checkpoint, and the content of its newest whole one."""
    for seed in reversed(found.settings.seeds):
        try:
            content, notes = Checkpoints(folder.checkpoints, f"seed{seed}").newest()
        except CheckpointError:
            return seed, None  # whoever needs this seed will say so
        if content is not None:
            found.contents[seed] = content, notes
            return seed, content
    return 0, None


def _fits(content: dict[str, Any], seed: int, begun: set[str], found: TakenUp, folder: RunFolder) -> bool:
    """Whether a checkpoint is of this run; settings that ``config.yaml`` has lost are put back then."""
    with foreign(CheckpointError, f"a checkpoint in {folder.checkpoints} does not fit its run"):
        key, settings = content["training"]["run"], found.settings
        if "settings" in content:
            kept = _settings_in(content)
            update = {name: getattr(settings, name) for name in IRRELEVANT}
            settings = kept.model_copy(update=update)
        if key != settings.model_copy(update={"seeds": (seed,)}).specs()[0].key:
            return False
        here = found.settings.model_copy(update={"seeds": (seed,)}).specs()[0].key
        if key != here and (here in begun or key not in begun):
            return False
    changed = changed_settings(settings, found.settings)
    if changed:
        found.notes.append(
            f"{folder.config} is not what it was ({'; '.join(changed)}): the settings of the checkpoint are put back; "
            "other settings are for another folder"
        )
        found.settings = settings
    return True


def _note_broken_config(folder: RunFolder, found: TakenUp) -> None:
    try:
        _merged(folder, read_settings(folder.config))
    except SettingsError as error:
        found.notes.append(f"{error}: it is written again from a checkpoint")


def _unlike(folder: RunFolder, content: dict[str, Any]) -> str:
    """Why the ``.jsonl`` files do not begin as they did when the checkpoint was written; empty if they do."""
    for path in (folder.metrics, folder.events):
        with foreign(CheckpointError, f"a checkpoint in {folder.checkpoints} does not fit its run"):
            kept = content["files"][path.name]
            length, digest = length_of(kept), kept["sha256"] if isinstance(kept, dict) else ""
            if not isinstance(digest, str):
                raise TypeError(f"expected a sha256, got {shown(digest)}")
        try:
            size = regular(path)
            if size < length:
                return f"{path.name} has {size} bytes, but had {length} when the checkpoint was written"
            if digest and _digest(path, length) != digest:
                return f"{path.name} was changed after the checkpoint was written"
        except OSError as error:
            return f"{path.name}: {reason(error)}"
    return ""


def _digest(path: Path, length: int) -> str:
    """The sha256 of the first ``length`` bytes."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while length and (piece := file.read(min(PIECE, length))):
            found.update(piece)
            length -= len(piece)
    return found.hexdigest()


def _set_aside(folder: RunFolder) -> None:
    for path in (folder.metrics, folder.events):
        if path.stat().st_size:
            os.replace(path, path.with_name(f"{path.name}.broken"))
            path.touch()
