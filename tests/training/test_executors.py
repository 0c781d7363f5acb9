"""Serial, processes and a real Dask cluster: the same numbers, and nothing lost when something goes wrong."""

import warnings

import pytest

from nestlearn.training import options
from nestlearn.training.config import PRESETS
from nestlearn.training.contenders import find_contenders
from nestlearn.training.executors import open_pool
from nestlearn.training.run_folder import RunFolder
from nestlearn.training.sweep import run_courses
from nestlearn.training.tuning import plan

SETTINGS = options.merge(
    PRESETS["demo"],
    {"tasks": ["digits"], "steps": 8, "seeds": [0, 1], "lr_points": 2, "retentions": [0.9], "keep": 1, "grow": 1},
)


def sweep(path, kind: str, workers: int = 2, settings=SETTINGS, cluster: str | None = None):
    searches, folder = plan(find_contenders(settings.optimizers), settings), RunFolder.create(path)
    with open_pool(kind, workers, cluster) as pool:
        run_courses(searches, folder, pool)
    return searches, folder


TWO = options.merge(SETTINGS, {"optimizers": ["AdamW", "Momentum"]})


def numbers(searches) -> dict:
    return {key: (r.validation, r.test, [row[2] for row in r.train]) for s in searches for key, r in s.results.items()}


def test_a_serial_executor_hands_over_errors_like_any_other() -> None:
    with open_pool("serial", 1) as pool:
        assert pool.executor.submit(divmod, 7, 2).result() == (3, 1) and pool.slots() == 1
        assert isinstance(pool.executor.submit(divmod, 7, 0).exception(), ZeroDivisionError)


def test_an_unreachable_cluster_is_a_clear_error(monkeypatch) -> None:
    monkeypatch.setattr("nestlearn.training.executors.PATIENCE", 0.2)
    with (
        pytest.raises(ValueError, match=r"cannot reach a Dask scheduler at tcp://127.0.0.1:9"),
        open_pool("dask", 1, "tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.slow
def test_processes_and_a_dask_cluster_give_the_numbers_of_a_serial_sweep(tmp_path) -> None:
    truth = numbers(sweep(tmp_path / "serial", "serial", settings=TWO)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numbers(sweep(tmp_path / "dask", "dask", settings=TWO)[0]) == truth
    assert numbers(sweep(tmp_path / "processes", "processes", settings=TWO)[0]) == truth
