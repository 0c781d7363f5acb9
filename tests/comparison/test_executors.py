"""Serial, processes and a real Dask cluster: the same numbers, and nothing lost when something goes wrong."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from socket import socket

import pytest

from nestlearn.comparison.compare_settings import PRESETS
from nestlearn.comparison.executors import open_pool
from nestlearn.comparison.search import plan
from nestlearn.comparison.sweep import run_courses
from nestlearn.contenders import find_contenders
from nestlearn.training import merge
from nestlearn.training.run_folder import RunFolder

SETTINGS = merge(
    PRESETS["demo"],
    {"tasks": ["digits"], "steps": 8, "seeds": [0, 1], "lr_points": 2, "retentions": [0.9], "keep": 1, "grow": 1},
)


def sweep(path, kind: str):
    searches = plan(find_contenders(["AdamW", "Momentum"]), SETTINGS)
    with open_pool(kind, 1 if kind == "dask" else 2) as pool:  # each worker of a cluster loads torch and the cluster
        run_courses(searches, RunFolder.create(path), pool)
    return searches


def numbers(searches) -> list[tuple]:
    """What each search chose, and what its runs gave."""
    return [
        (s.chosen(), {key: (r.validation, r.test, [row[2] for row in r.train]) for key, r in s.results.items()})
        for s in searches
    ]


def test_a_serial_executor_hands_over_errors_like_any_other() -> None:
    with open_pool("serial", 1) as pool:
        assert pool.executor.submit(divmod, 7, 2).result() == (3, 1) and pool.slots() == 1
        assert isinstance(pool.executor.submit(divmod, 7, 0).exception(), ZeroDivisionError)


def test_an_unreachable_cluster_is_a_clear_error(monkeypatch) -> None:
    monkeypatch.setattr("nestlearn.comparison.executors.PATIENCE", 0.2)
    with (
        pytest.raises(ValueError, match=r"cannot reach a Dask scheduler at tcp://127.0.0.1:9"),
        open_pool("dask", 1, "tcp://127.0.0.1:9"),
    ):
        pass


@contextmanager
def another_dask() -> Iterator[None]:
    """A block in which the port that Dask prefers is taken on this machine, by us or somebody else."""
    with socket() as taken:
        with suppress(OSError):
            taken.bind(("", 8787))
            taken.listen()
        yield


@pytest.mark.slow
def test_processes_and_a_dask_cluster_give_the_numbers_of_a_serial_sweep(tmp_path) -> None:
    truth = numbers(sweep(tmp_path / "serial", "serial"))
    with warnings.catch_warnings(), another_dask():
        warnings.simplefilter("error")
        assert numbers(sweep(tmp_path / "dask", "dask")) == truth
    assert numbers(sweep(tmp_path / "processes", "processes")) == truth


@pytest.mark.slow
def test_a_dead_worker_of_a_cluster_costs_a_repetition_and_a_deadly_run_is_an_error(tmp_path) -> None:
    from dask import config

    mark = tmp_path / "tried"
    once = f"import os, pathlib; p = pathlib.Path({str(mark)!r}); p.exists() or (p.touch(), os._exit(1))"
    # Each death takes a second: two are enough.
    with config.set({"distributed.scheduler.allowed-failures": 1}), open_pool("dask", 2) as pool:
        assert pool.slots() == 4
        assert pool.executor.submit(exec, once).result(timeout=300) is None and mark.exists()
        deadly = pool.executor.submit(os._exit, 1).exception(timeout=300)
        assert type(deadly).__name__ == "KilledWorker"


@pytest.mark.slow
def test_a_dead_worker_process_is_an_error_of_its_run() -> None:
    with open_pool("processes", 2) as pool:
        assert isinstance(pool.executor.submit(os._exit, 1).exception(timeout=120), BrokenProcessPool)
