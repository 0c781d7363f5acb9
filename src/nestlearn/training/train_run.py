"""``nestlearn train`` without its terminal: the runs of all seeds in one folder, checkpointed and resumable.

A folder is always in one of three states for each seed: no checkpoint (nothing of it is written), checkpoints, or a
``run`` line in ``metrics.jsonl`` (it is finished). Each is reached by one atomic write, so a kill at any moment leaves
a folder that ``resume`` continues to the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from time import perf_counter
from typing import Any

import torch

from nestlearn.errors import SettingsError, as_settings_error
from nestlearn.training import options
from nestlearn.training.checkpoint import CheckpointError, Checkpoints
from nestlearn.training.contenders import BASELINE, MUON
from nestlearn.training.environment import environment
from nestlearn.training.live_files import LiveFiles
from nestlearn.training.loop import Interrupted, Training
from nestlearn.training.optimizers import find_optimizer
from nestlearn.training.run_folder import RunFolder, write_atomic
from nestlearn.training.spec import RunResult, RunSpec
from nestlearn.training.statistics import interval
from nestlearn.training.summary import figures
from nestlearn.training.train_settings import TrainSettings, changed_settings

__all__ = ["TrainRun", "results_of"]

Progress = Callable[[Training], None]


class TrainRun:
    """The runs of ``settings``, which are resolved, in ``folder``: ``create`` or ``resume`` it, then ``run``.

    Attributes:
        notes: what the user should know of the folder, such as a checkpoint that was passed over.
    """

    def __init__(self, folder: RunFolder, settings: TrainSettings) -> None:
        self.folder, self.settings = folder, settings
        self.notes: list[str] = []
        self._finished: dict[str, RunResult] = {}
        self._prepared: Training | None = None

    def create(self) -> None:
        """Make the folder and write the settings there.

        Raises:
            RunFolderError: the folder is taken or cannot be written.
        """
        RunFolder.create(self.folder.path)
        write_atomic(self.folder.config, options.to_yaml(self.settings))

    def resume(self) -> None:
        """Continue in an existing folder; settings that change no result may differ from those it was begun with.

        Raises:
            SettingsError: other settings differ; the message names them.
            RunFolderError: it is not a run folder, or holds a broken file.
        """
        changed = changed_settings(self.settings_of(RunFolder.open(self.folder.path)), self.settings)
        if changed:
            raise SettingsError(
                f"the run in {self.folder.path} cannot be continued with other settings, they would change its result: "
                f"{'; '.join(changed)}. Leave them out, or start a new folder with --out."
            )
        self._finished, self.notes = self.folder.runs()
        write_atomic(self.folder.config, options.to_yaml(self.settings))

    @staticmethod
    def settings_of(folder: RunFolder) -> TrainSettings:
        """The settings in the folder's ``config.yaml``.

        Raises:
            SettingsError: they are broken, or those of a comparison.
        """
        plain = options.read(folder.config)
        if plain.get("kind") != "train":
            raise SettingsError(
                f"{folder.path} was written by `nestlearn {plain.get('kind')}`, not by `nestlearn train`: continue it "
                f"with nestlearn {plain.get('kind')} --resume {folder.path}"
            )
        return options.merge(TrainSettings(), plain)

    @as_settings_error()
    def prepare(self) -> Training | None:
        """The training that comes first, built and not begun, to see before anything is written whether it can be; None
        if all are finished.

        Raises:
            SettingsError: task or optimizer refuse their settings.
        """
        specs = [self.settings.spec(seed) for seed in self.settings.seeds]
        left = [spec for spec in specs if spec.key not in self._finished]
        if left:
            with _threads(self.settings.threads):
                self._prepared = self._training(left[0])
        return self._prepared

    def _training(self, spec: RunSpec) -> Training:
        if self._prepared is not None and self._prepared.spec == spec:
            prepared, self._prepared = self._prepared, None
            return prepared
        try:
            return Training(spec, train_rows=self.settings.rows, surprise_rows=self.settings.rows)
        except TypeError as error:
            raise ValueError(f"{spec.variant.name} on {spec.task}: {error}") from error

    def run(self, progress: Progress = lambda training: None, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Run all seeds that are not finished, and write the results.

        Args:
            progress: called after every step that recorded something.
            should_stop: asked after every step.

        Raises:
            Interrupted: ``should_stop`` became true; a checkpoint of the moment is written.
            CheckpointError, RunFolderError: the folder cannot be continued.
        """
        start, reused = perf_counter(), len(self._finished)
        started = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
        with _threads(self.settings.threads), LiveFiles(self.folder) as files:
            for seed in self.settings.seeds:
                if self.settings.spec(seed).key not in self._finished:
                    self._run_seed(seed, files, progress, should_stop)
        facts = environment(self.settings.device, 1) | {"threads_per_worker": self.settings.threads}
        facts |= {"started": started, "seconds": round(perf_counter() - start, 1), "reused_runs": reused}
        write_atomic(self.folder.environment, json.dumps(facts, indent=2) + "\n")
        write_atomic(self.folder.results, json.dumps(self.results(), indent=1, allow_nan=False) + "\n")

    def _run_seed(self, seed: int, files: LiveFiles, progress: Progress, should_stop: Callable[[], bool]) -> None:
        training = self._training(self.settings.spec(seed))
        checkpoints = Checkpoints(self.folder.checkpoints, f"seed{seed}")

        def save() -> None:
            lengths = files.sync()
            checkpoints.save(training.steps_taken, {"files": lengths, "training": training.state_dict()})

        content, notes = checkpoints.newest()
        self.notes += notes
        if content is None and files.holds(training.spec.key):
            raise CheckpointError(
                f"there is no checkpoint of seed{seed} in {self.folder.checkpoints}, but rows of its run are in "
                f"{self.folder.metrics.name}: put the checkpoint back, or start a new folder with --out."
            )
        if content is None:
            files.follow(training)
            save()  # so that from the first row on there is a length to cut the files back to
        else:
            self._load(training, content, files)
        with training:
            while not training.done:
                training.step()
                if files.write(training):
                    progress(training)
                stop = should_stop() and not training.done
                if stop or training.done or training.steps_taken % self.settings.checkpoint_every == 0:
                    save()
                if stop:
                    raise Interrupted(training.spec.key)
            result = training.result()
        files.finish(result)
        self._finished[result.key] = result

    def _load(self, training: Training, content: dict[str, Any], files: LiveFiles) -> None:
        try:
            training.load_state_dict(content["training"])
        except (ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"a checkpoint in {self.folder.checkpoints} does not fit its run: {error}") from error
        files.cut(content["files"])
        files.follow(training)

    def results(self) -> dict[str, Any]:
        """``results.json``, when all runs are finished."""
        specs = [self.settings.spec(seed) for seed in self.settings.seeds]
        return results_of(specs, [self._finished[spec.key] for spec in specs])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def results_of(specs: list[RunSpec], runs: list[RunResult]) -> dict[str, Any]:
    """A table of one row, of the shape that a comparison's ``results.json`` has, from one run a seed."""
    contender = find_optimizer(specs[0].variant.contender)
    diverged = [run for run in runs if run.status == "diverged"]
    test = figures(runs, "test")
    row = {
        "name": contender.name,
        "contender": contender.name,
        "control": False,
        "control_name": None,
        "control_is": "",
        "family": contender.family,
        "equation": contender.equation,
        "about": contender.about,
        "status": "diverged" if diverged else "finished",
        "reason": f"seed {diverged[0].seed}, {diverged[0].reason}" if diverged else "",
        "settings": runs[0].settings,
        "fixed": dict(specs[0].fixed),
        "edges": [],
        "warnings": [],
        "grid": {},
        "trials": [],
        "trials_count": 0,
        "diverged_trials": 0,
        "validation": figures(runs, "validation"),
        "test": test,
        "interval": interval(test["loss"]["values"]) if test else None,
        "against_control": None,
        "against_baseline": None,
        "against_muon": None,
        "to_target": None,
        "equal_time": None,
        "equal_bytes": None,
        "step_ms": min(run.step_ms for run in runs),
        "optimizer_ms": min(run.optimizer_ms for run in runs),
        "state_bytes": runs[0].state_bytes,
        "parameters": runs[0].parameters,
        "runs": [run.key for run in runs],
        "spec": specs[0].to_plain(),
    }
    return {"baseline": BASELINE, "muon": MUON, "warnings": [], "tasks": {specs[0].task: [row]}}
