"""``nestlearn train`` without its terminal: the runs of all seeds in one folder, checkpointed and resumable.

A folder is always in one of three states for each seed: no checkpoint (nothing of it is written), checkpoints, or a
``run`` line in ``metrics.jsonl`` (it is finished). Each is reached by one atomic write, so a kill at any moment leaves
a folder that ``resume`` continues to the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from typing import Any

import torch

from nestlearn.contenders import BASELINE, MUON
from nestlearn.errors import SettingsError, as_settings_error
from nestlearn.files import Hold
from nestlearn.foreign import foreign
from nestlearn.integrations.logging import check_tracker
from nestlearn.tasks import check_data
from nestlearn.training.checkpoint import CheckpointError, Checkpoints
from nestlearn.training.environment import environment
from nestlearn.training.kept import keep
from nestlearn.training.live_files import LiveFiles
from nestlearn.training.loop import Interrupted, Training
from nestlearn.training.mending import TakenUp, content_of, settings_of, take_up
from nestlearn.training.ranks import ALONE, Ranks
from nestlearn.training.results import Results, Row, RunResult
from nestlearn.training.room import check_room, check_state
from nestlearn.training.run_folder import RunFolder, write_atomic
from nestlearn.training.settings import to_yaml
from nestlearn.training.spec import RunSpec
from nestlearn.training.statistics import figures, interval
from nestlearn.training.tracking import recorded, tracked
from nestlearn.training.train_settings import TrainSettings, changed_settings

__all__ = ["TrainRun", "results_of", "threads_of"]

Progress = Callable[[Training], None]


@dataclass
class TrainRun:
    """The runs of ``settings``, which are resolved, in ``folder``: ``begin``, then ``run``.

    Attributes:
        ranks: the processes that train together, as ``settings.strategy`` says; each makes such an object, and the
            first of them alone reads and writes the folder.
        notes: what the user should know of the folder, such as a checkpoint that was passed over.
    """

    folder: RunFolder
    settings: TrainSettings
    ranks: Ranks = ALONE
    notes: list[str] = field(default_factory=list)
    _finished: dict[str, RunResult] = field(default_factory=dict)
    _first: Training | None = None
    _taken: TakenUp | None = None  # of a run that is continued, on rank 0
    _held: Hold | None = None

    @as_settings_error()
    def begin(self, *, resume: bool = False) -> Training | None:
        """Make the folder, or with ``resume`` go on in it, once the data are there and the training that comes first
        could be built; returns that training, not begun, or None if all are finished.

        Settings that change no result may differ from those with which the folder was begun.

        Raises:
            SettingsError: task or optimizer refuse their settings, or settings that would change the result differ from
                those of the folder; the message names them.
            DataFileError: the task's data are not there, or are not what they should be.
            MissingPackageError: what the setting ``log`` names is not installed.
            RunFolderError: the folder is taken or cannot be written, or is none to resume.
        """
        check_tracker(self.settings.log)
        try:
            if resume:
                self.settings, self._finished, self.notes = self.ranks.at_first(self._take_up)
            check_data([self.settings.task.name])
            left = [spec for spec in self.settings.specs() if spec.key not in self._finished]
            if left:
                with threads_of(self.settings.threads):
                    self._first = self._training(left[0])
            self.ranks.at_first(lambda: self._claim(resume))
        except BaseException:
            self._let_go()
            raise
        return self._first

    def _let_go(self) -> None:
        """Let others write the folder."""
        if self._held is not None:
            self._held.release()

    def _training(self, spec: RunSpec) -> Training:
        if self.ranks.alone:
            check_room(spec.task, dict(spec.size), spec.device, spec.dtype, spec.seed)
        training = Training(spec, rows=self.settings.rows, looks=self.settings.rows, ranks=self.ranks)
        if self.ranks.alone:
            check_state(spec.variant.name, training.optimizers, spec.device)
        return training

    def _claim(self, resume: bool) -> None:
        """Write the settings into the folder, which is made unless it is there to be continued."""
        if not resume:
            self._held = RunFolder.create(self.folder.path).hold(new=True)
        if self._first is not None:
            keep(self.folder.path, self._first.model)
        write_atomic(self.folder.config, to_yaml(self.settings))

    def _take_up(self) -> tuple[TrainSettings, dict[str, RunResult], list[str]]:
        """The settings, what is finished in the folder, and notes about it."""
        before = self.settings_of(self.folder)
        self._held = self.folder.hold()
        changed = changed_settings(before, self.settings)
        if changed:
            raise SettingsError(
                f"the run in {self.folder.path} cannot be continued with other settings, they would change its result: "
                f"{'; '.join(changed)}. Leave them out, or start a new folder with --out."
            )
        self._taken = take_up(self.folder, self.settings)
        notes = [note for note in (self._held.note, *self._taken.notes) if note]
        return self._taken.settings, self._taken.finished, notes

    @staticmethod
    def settings_of(folder: RunFolder) -> TrainSettings:
        """The settings in the folder's ``config.yaml``, or if that is gone or broken, those in a checkpoint.

        Raises:
            SettingsError: they are broken, or those of a comparison.
            RunFolderError: there are none.
        """
        return settings_of(folder)

    def run(self, progress: Progress = lambda training: None, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Run all seeds that are not finished, and write the results.

        Args:
            progress: called after every step that recorded something.
            should_stop: asked after every step.

        Raises:
            Interrupted: ``should_stop`` became true; a checkpoint of the moment is written.
            CheckpointError, RunFolderError: the folder cannot be continued, or it or a file in it was removed,
                replaced or changed by somebody else.
            OSError: the disk is full, or the folder cannot be written. All up to the last checkpoint is kept.
        """
        try:
            self._run(progress, should_stop)
        finally:
            self._let_go()

    def _run(self, progress: Progress, should_stop: Callable[[], bool]) -> None:
        start, reused = perf_counter(), len(self._finished)
        started = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
        opened = LiveFiles(self.folder) if self.ranks.first else nullcontext()
        with threads_of(self.settings.threads), opened as files:
            for spec in self.settings.specs():
                if spec.key not in self._finished:
                    self._run_seed(spec, files, progress, should_stop)
        if not self.ranks.first:
            return
        facts = environment(self.settings.device, self.ranks.count) | {"threads_per_worker": self.settings.threads}
        facts |= {"started": started, "seconds": round(perf_counter() - start, 1), "reused_runs": reused}
        write_atomic(self.folder.environment, json.dumps(facts, indent=2) + "\n")
        write_atomic(self.folder.results, json.dumps(self.results().to_plain(), indent=1, allow_nan=False) + "\n")

    def _run_seed(
        self, spec: RunSpec, files: LiveFiles | None, progress: Progress, should_stop: Callable[[], bool]
    ) -> None:
        training, self._first = self._first, None
        if training is None or training.spec != spec:
            training = self._training(spec)
        checkpoints = Checkpoints(self.folder.checkpoints, f"seed{spec.seed}", self.settings.checkpoints)

        def save() -> None:
            state = training.state_dict()  # all ranks have a part of it, and wait until it is on the disk
            self.ranks.at_first(lambda: self._write(checkpoints, training.steps_taken, state, files))

        content = self.ranks.at_first(lambda: self._newest(checkpoints, training.spec))
        if content is not None:
            self._load(training, content, files)
        elif files is not None:
            files.follow(training)
        if content is None:
            save()  # so that from the first row on there is a length to cut the files back to
        tracker = tracked(training, self.settings, self.folder.path, first=self.ranks.first)
        with training, recorded(training, self.settings, self.folder.path), tracker as track:
            while not training.done:
                training.step()
                if files is not None and files.write(training):
                    track()
                    progress(training)
                stop = self.ranks.any(should_stop()) and not training.done
                if stop or training.done or training.steps_taken % self.settings.checkpoint_every == 0:
                    save()
                if stop:
                    raise Interrupted(training.spec.key)
            result = training.result()
        if files is not None:
            files.finish(result)
        self._finished[result.key] = result

    def _newest(self, checkpoints: Checkpoints, spec: RunSpec) -> dict[str, Any] | None:
        """The content of the newest checkpoint, None before the first one."""
        taken = self._taken
        loaded = taken.contents.pop(spec.seed, None) if taken is not None else None
        content, notes = loaded or checkpoints.newest()
        self.notes += notes
        if content is None and taken is not None and spec.key in taken.begun:
            raise CheckpointError(
                f"there is no checkpoint of seed{spec.seed} in {self.folder.checkpoints}, but rows of its run are in "
                f"{self.folder.metrics.name}: put the checkpoint back, or start a new folder with --out."
            )
        return content

    def _write(self, checkpoints: Checkpoints, step: int, state: dict[str, Any], files: LiveFiles | None) -> None:
        if files is not None:
            checkpoints.save(step, content_of(self.settings, files, state))

    def _load(self, training: Training, content: dict[str, Any], files: LiveFiles | None) -> None:
        with foreign(CheckpointError, f"a checkpoint in {self.folder.checkpoints} does not fit its run"):
            training.load_state_dict(content["training"])
        self.ranks.at_first(lambda: self._cut(training, files, content["files"]))

    def _cut(self, training: Training, files: LiveFiles | None, lengths: dict[str, Any]) -> None:
        """Make the files hold the rows of the checkpoint, and none that came after them."""
        if files is None:
            return
        if self._taken is not None and self._taken.rewritten:
            files.follow(None)
            files.write(training)
        else:
            files.cut(lengths)
            files.follow(training)

    @property
    def left(self) -> int:
        """How many runs are not finished."""
        return sum(spec.key not in self._finished for spec in self.settings.specs())

    def results(self) -> Results:
        """What ``results.json`` holds, when all runs are finished."""
        specs = self.settings.specs()
        return results_of(specs, [self._finished[spec.key] for spec in specs])


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """A block in which torch has so many threads on the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def results_of(specs: list[RunSpec], runs: list[RunResult]) -> Results:
    """A table of one row, of the shape that a comparison's has, from one run a seed."""
    contender = specs[0].contender
    diverged = [run for run in runs if run.status == "diverged"]
    test = figures(runs, "test")
    row = Row(
        name=contender.label,
        contender=contender.name,
        control=False,
        family=contender.family,
        equation=contender.equation,
        about=contender.about,
        status="diverged" if diverged else "finished",
        reason=f"seed {diverged[0].seed}, {diverged[0].reason}" if diverged else "",
        settings=runs[0].settings,
        fixed=dict(specs[0].fixed),
        validation=figures(runs, "validation"),
        test=test,
        interval=interval(test["loss"].values) if test else None,
        step_ms=min(run.step_ms for run in runs),
        optimizer_ms=min(run.optimizer_ms for run in runs),
        state_bytes=runs[0].state_bytes,
        parameters=runs[0].parameters,
        runs=tuple(run.key for run in runs),
        spec=specs[0].to_plain(),
    )
    return Results(baseline=BASELINE, muon=MUON, tasks={specs[0].task: (row,)})
