"""A whole comparison in a run folder: plan, run, summarise, write ``results.json``.

settings = resolve(preset("demo"), tasks=("digits",), optimizers=("M3",))
results = compare(settings, Path("runs/mine"))
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from time import perf_counter

from nestlearn.comparison.compare_settings import CompareSettings
from nestlearn.comparison.executors import Pool, open_pool
from nestlearn.comparison.matched import Matched, plan_matched
from nestlearn.comparison.search import Search, plan
from nestlearn.comparison.summary import summarise
from nestlearn.comparison.sweep import Progress, run_courses
from nestlearn.contenders import find_contenders
from nestlearn.errors import as_settings_error
from nestlearn.files import Hold
from nestlearn.imported import again
from nestlearn.tasks import check_data
from nestlearn.training import Results, RunFolder, RunResult, environment, to_yaml
from nestlearn.training.room import check_room
from nestlearn.training.run_folder import write_atomic

__all__ = ["compare"]


def compare(
    settings: CompareSettings,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress = lambda result, reused, total: None,
    tell: Callable[[str], None] = lambda note: None,
) -> Results:
    """Tune, train and compare as ``settings`` say, and return what ``results.json`` of the folder then holds.

    Args:
        settings: what ``resolve`` returned.
        folder: a new run folder; with ``resume`` an existing one, whose finished runs are kept.
        progress: called with every result, whether it was reused, and how many runs there are in all.
        tell: called with what the user should know of the folder, such as a broken line that was passed over.

    Raises:
        RunFolderError: the folder cannot be written, is taken, being written by another process, or none to resume; a
            file in it was removed, replaced or changed by somebody else meanwhile.
        DataFileError: a task's data are not there, or are not what they should be.
        SettingsError: a cluster that does not answer, or is not fit.
        SweepError, KeyboardInterrupt: as ``run_courses``; finished runs are kept.
    """
    check_data(settings.tasks)
    with as_settings_error():
        for task in settings.tasks:
            check_room(task, settings.sizes.get(task, {}), settings.device, settings.dtype)
    with open_pool(settings.executor, settings.workers, settings.cluster) as pool:
        files = RunFolder.open(folder) if resume else RunFolder.create(folder)
        with files.hold(new=not resume) as held:
            try:
                return _compare(settings, files, pool, held, resume, progress, tell)
            except Exception as error:
                if files.config.exists():
                    error.add_note(f"finished runs are kept; continue with: {_continue(files, settings)}")
                raise


def _continue(files: RunFolder, settings: CompareSettings) -> str:
    return f"nestlearn compare --resume {shlex.quote(str(files.path))}{again(to_yaml(settings))}"


def _compare(
    settings: CompareSettings,
    files: RunFolder,
    pool: Pool,
    held: Hold,
    resume: bool,
    progress: Progress,
    tell: Callable[[str], None],
) -> Results:
    """The same in a folder that this process holds."""
    start, started = perf_counter(), f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    if held.note:
        tell(held.note)
    known = files.compact(tell) if resume else {}
    write_atomic(files.config, to_yaml(settings))
    searches, matched = _run(settings, files, pool, known, progress)
    facts = environment(settings.device, settings.workers)
    facts |= {"started": started, "seconds": round(perf_counter() - start, 1), "reused_runs": len(known)}
    results = summarise(searches, settings, matched)
    write_atomic(files.environment, json.dumps(facts, indent=2) + "\n")
    write_atomic(files.results, json.dumps(results.to_plain(), indent=1, allow_nan=False) + "\n")
    return results


def _run(
    settings: CompareSettings, files: RunFolder, pool: Pool, known: dict[str, RunResult], progress: Progress
) -> tuple[list[Search], list[Matched]]:
    """All searches, then what depends on what they chose."""
    searches = plan(find_contenders(settings.optimizers), settings)
    others = len(searches) * len(settings.seeds) * len(settings.matched)

    def tell(result: RunResult, reused: bool, total: int) -> None:
        progress(result, reused, total + others)

    run_courses(searches, files, pool, known=known, progress=tell)
    matched = plan_matched(searches)
    others = sum(search.planned for search in searches)  # by now those that came before
    run_courses(matched, files, pool, known=known, progress=tell)
    return searches, matched
