"""A run whose rows are sent to a tracker as well, and one that is not: the same run, and nothing else in its folder."""

import json
from pathlib import Path

import pytest
from needed import needs
from sameness import TIMES, differences, left_behind

from nestlearn.errors import MissingPackageError, SettingsError
from nestlearn.integrations import logging
from nestlearn.integrations.logging import Tracker
from nestlearn.training import tracking
from nestlearn.training.loop import Interrupted
from nestlearn.training.run_folder import RunFolder
from nestlearn.training.train_run import TrainRun
from nestlearn.training.train_settings import TrainSettings, resolve_training

SETTINGS = [
    *("task=tiny_task:lines", "optimizer=DeepMomentum", "optimizer.hidden=4"),
    *("steps=12", "rows=4", "points=2", "checkpoint_every=100"),
]


def run(path: Path, log: str, *changes: str, resume: bool = False, stop: int | None = None) -> None:
    asked: list[int] = []
    settings = resolve_training(TrainSettings(), *SETTINGS, f"log={log}", *changes)
    folder = TrainRun(RunFolder(path), settings)
    folder.begin(resume=resume)
    folder.run(should_stop=lambda: bool(asked.append(1)) or len(asked) == stop)


def test_losses_and_what_the_optimizer_did_are_sent_at_every_row_and_a_resumed_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, list[str]]] = []
    opened: list[tuple[str, str, int]] = []

    def keep(kind: str, folder: Path, name: str, taken: int) -> Tracker:
        opened.append((kind, name, taken))
        return Tracker(lambda numbers, step: sent.append((step, sorted(numbers))), lambda: sent.append((-1, [])))

    monkeypatch.setattr(logging, "PACKAGES", {"trackio": "json"})
    monkeypatch.setattr(tracking, "_opened", keep)
    with pytest.raises(Interrupted):
        run(tmp_path / "sent", "trackio", stop=7)
    run(tmp_path / "sent", "trackio", resume=True)
    assert opened == [("trackio", "sent-seed0", 0), ("trackio", "sent-seed0", 7)]
    assert [step for step, names in sent if names == ["loss/train"]] == [3, 6, 9, 12]
    assert [step for step, names in sent if names == ["loss/validation"]] == [6, 12]
    measured = [(step, names) for step, names in sent if "update/1/matrix" in names]
    assert [step for step, _ in measured] == [3, 6, 9, 12]
    assert all({"surprise/2/matrix.momentum", "spectrum/1/matrix/top"} <= set(names) for _, names in measured)
    assert [step for step, _ in sent].count(-1) == 2 and sent[-1][0] == -1

    run(tmp_path / "alone", "none")
    one, two = (left_behind(tmp_path / name, 1) for name in ("sent", "alone"))
    assert differences(one, two, ignore=TIMES) == []


def test_steps_are_those_of_the_run_where_gradients_come_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(logging, "PACKAGES", {"trackio": "json"})
    tracker = Tracker(lambda numbers, step: sent.append((step, list(numbers))), lambda: None)
    monkeypatch.setattr(tracking, "_opened", lambda *_: tracker)
    run(tmp_path / "late", "trackio", "task.delay=2")
    assert [step for step, names in sent if "update/1/matrix" in names] == [3, 6, 9, 12]


def test_tensorboard_writes_into_the_run_folder(tmp_path: Path) -> None:
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path / "mine", "tensorboard")
    found = EventAccumulator(str(tmp_path / "mine" / "tensorboard" / "mine-seed0")).Reload()
    assert [event.step for event in found.Scalars("surprise/2/matrix.momentum")] == [3, 6, 9, 12]
    assert [event.step for event in found.Scalars("loss/train")] == [3, 6, 9, 12]


def test_a_missing_package_is_named_before_a_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(logging.PACKAGES, "wandb", "not_there_at_all")
    with pytest.raises(MissingPackageError, match=r"nestlearn\[log\]"):
        run(tmp_path / "mine", "wandb")
    assert not (tmp_path / "mine").exists()


def test_a_recorded_run_is_the_same_run_and_its_record_goes_on_with_it(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path / "recorded", "none", "record=1", stop=7)
    run(tmp_path / "recorded", "none", "record=1", resume=True)
    record = tmp_path / "recorded" / "record" / "seed0"
    lines = [json.loads(line) for line in (record / "writes.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "step" in line] == [3, 6, 9, 12]
    assert json.loads((record / "record.json").read_text())["kind"] == "record"
    run(tmp_path / "alone", "none")
    one, two = (left_behind(tmp_path / name, 1) for name in ("recorded", "alone"))
    one = {name: content for name, content in one.items() if not name.startswith("record/")}
    assert differences(one, two, ignore=(*TIMES, "record")) == []


def test_many_ranks_do_not_record() -> None:
    with pytest.raises(SettingsError, match="one process alone can record, expected strategy none, got ddp"):
        resolve_training(TrainSettings(), *SETTINGS, "record=0.01", "strategy=ddp")
