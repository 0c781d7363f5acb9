"""Files that grow are read once, thinned without losing a peak, and believed in nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from served_runs import LANES, grow, line, made, point, unpacked
from typer.testing import CliRunner

import nestlearn as nl
from nestlearn.cli.main import build_entry
from nestlearn.errors import RunFolderError
from nestlearn.explore import Shelf
from nestlearn.explore.answers import everything, score, series
from nestlearn.explore.frames import Cursor, frame
from nestlearn.explore.runs import MOST_LANES, Run
from nestlearn.explore.series import Curve, extremes
from nestlearn.explore.tail import Tail


def only(shelf: Shelf) -> Run:
    (run,) = shelf.refresh()
    return run


def test_fewer_points_keep_every_peak() -> None:
    generator = np.random.default_rng(0)
    steps, values = np.arange(10_000.0), generator.normal(size=10_000)
    values[[17, 5003]], values[8000] = (90.0, -80.0), np.nan
    few, kept = extremes(steps, values, 200)
    assert len(few) <= 200 and (np.diff(few) > 0).all()
    assert kept.max() == 90 and kept.min() == -80 and all(values[int(s)] == v for s, v in zip(few, kept, strict=True))


def test_a_run_is_told_as_its_files_have_it_and_what_came_is_read_alone(tmp_path: Path) -> None:
    folder = made(tmp_path / "a" / "mine", 40)
    shelf = Shelf([tmp_path])
    run = only(shelf)
    assert run.to_dict() | {"id": "", "folder": ""} == {
        "id": "", "folder": "", "run": "mine", "latest": 40, "status": "open", "lanes": 6, "frozen": [10, 30],
        "checkpoints": [], "forked": None,
        "loss": {"train": 0.025, "validation": 0.5}, "row": {},
    }  # fmt: skip
    told = score(run)
    assert told["steps"] == list(range(1, 41)) and [lane["level"] for lane in told["lanes"]] == [1, 1, 2, 2, 3, 3]
    momentum, weights = told["lanes"][4], told["lanes"][1]
    assert momentum["measure"] == "surprise" and momentum["low"] == momentum["high"] == [s + 0.5 for s in range(1, 41)]
    assert weights["measure"] == "update" and weights["high"][:2] == pytest.approx([1 / 2, 1 / 3], rel=1e-5)
    assert score(run, start=10, stop=19)["steps"] == list(range(10, 20))
    few = score(run, points=4)
    assert few["steps"] == [10, 20, 30, 40] and few["lanes"][4]["low"] == [1.5, 11.5, 21.5, 31.5]
    assert series(run)["train"]["loss"] == pytest.approx([1 / s for s in range(1, 41)], rel=1e-5)

    with (folder / "writes.jsonl").open("a") as file:
        file.write(line(41)[:20])
        file.flush()
        assert only(shelf).latest == 40
        file.write(line(41)[20:])
    assert only(shelf).lanes.steps[-1] == 41


def test_frames_tell_everything_once_and_then_what_came(tmp_path: Path) -> None:
    folder = made(tmp_path / "mine", 40)
    shelf, cursor = Shelf([tmp_path]), Cursor()
    head, blocks = unpacked(frame(only(shelf), cursor))
    assert head["kind"] == "whole" and len(head["lanes"]) == 6 and head["frozen"] == [10, 30]
    assert blocks["score.high"].reshape(6, 40)[4].tolist() == [step + 0.5 for step in range(1, 41)]
    assert blocks["train.step"].tolist() == list(range(1, 41))
    assert frame(only(shelf), cursor) is None
    grow(folder, 41, 43)
    (folder / "frozen" / "42.json").write_text("{}")
    head, blocks = unpacked(frame(only(shelf), cursor))
    assert head["kind"] == "tail" and "lanes" not in head and head["frozen"] == [10, 30, 42]
    assert blocks["score.step"].tolist() == [41, 42, 43] and blocks["train.loss"].tolist() == [1 / 41, 1 / 42, 1 / 43]

    # Somebody who was cut off knows until where, and is told the rest; rows that were rewritten are told anew.
    back = Cursor(generation=head["generation"], train=41, validation=40, score=42)
    head, blocks = unpacked(frame(only(shelf), back))
    assert (
        head["kind"] == "tail" and blocks["score.step"].tolist() == [43] and blocks["train.step"].tolist() == [42, 43]
    )
    lines = (folder / "writes.jsonl").read_text().splitlines(keepends=True)
    (folder / "new").write_text("".join([lines[0], *lines[2::2]]))
    os.replace(folder / "new", folder / "writes.jsonl")
    head, blocks = unpacked(frame(only(shelf), back))
    assert head["kind"] == "whole" and blocks["score.step"].tolist() == list(range(2, 44, 2))


def test_a_frame_is_bounded_whatever_came(tmp_path: Path) -> None:
    made(tmp_path / "mine", 5000, frozen=())
    _, blocks = unpacked(frame(only(Shelf([tmp_path])), Cursor(points=50)))
    assert len(blocks["train.step"]) <= 50 and len(blocks["score.step"]) <= 50
    assert blocks["score.high"].reshape(6, -1)[4].max() == 5000.5 and blocks["score.step"][-1] == 5000


def test_comparisons_and_trainings_are_read_from_what_they_write(tmp_path: Path) -> None:
    folder = tmp_path / "compare"
    folder.mkdir()
    keys = ("digits/Muon/seed0", "digits/AdamW/seed0")
    rows = "".join(point(step, 1 / step, run=key) for key in keys for step in (1, 2, 3))
    done = {
        "kind": "run",
        "key": keys[0],
        "task": "digits",
        "variant": "Muon",
        "status": "finished",
        "test": {"loss": 0.2},
    }
    (folder / "metrics.jsonl").write_text(rows + json.dumps(done) + "\n")
    looks = [{"run": keys[0], "step": s, "memory": m, "surprise": s / 4} for s in (1, 2) for m in ("momentum", "slow")]
    (folder / "events.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    (folder / "systems.json").write_text(json.dumps({"digits": {"Muon": {"name": "Muon", "memories": []}}}))
    one, two = Shelf([folder]).refresh()
    assert (one.to_dict()["status"], two.to_dict()["status"]) == ("finished", "open")
    assert one.to_dict()["row"]["test"] == {"loss": 0.2} and one.systems() == [{"name": "Muon", "memories": []}]
    assert [lane["high"] for lane in score(one)["lanes"]] == [[0.25, 0.5], [0.25, 0.5]] and score(two)["lanes"] == []


def test_what_is_recorded_is_what_is_read(tmp_path: Path) -> None:
    layer = torch.nn.Linear(4, 3)
    optimizer = nl.optim.Muon(layer.named_parameters())
    with nl.record(optimizer, tmp_path / "mine", every=1, freeze=2, share=1) as recorder:
        for _ in range(4):
            loss = layer(torch.ones(2, 4)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            recorder.loss(loss)
            optimizer.step()
    run = only(Shelf([tmp_path]))
    assert run.latest == 4 and len(run.curves["train"]) == 4 and run.frozen() == [1, 3]
    assert {lane["memory"] for lane in score(run)["lanes"]} >= {"matrix", "element", "matrix.momentum"}
    assert run.step(3)["parameters"][0]["memories"][0]["path"] == "momentum" and run.systems()[0]["name"] == "Muon"


def test_the_verb_prints_all_of_it_without_a_server_and_without_torch(tmp_path: Path) -> None:
    made(tmp_path / "mine", 12, frozen=(10,))
    call = CliRunner().invoke(build_entry(), ["explore", str(tmp_path), "--json", "--points", "6"])
    assert call.exit_code == 0, call.output
    (run,) = json.loads(call.output)["runs"]
    assert run["run"] == "mine" and len(run["score"]["steps"]) == 6 and run["step"]["step"] == 10
    assert len(run["series"]["train"]["step"]) <= 6 and run["systems"][0]["name"] == "Muon"
    missing = CliRunner().invoke(build_entry(), ["explore", str(tmp_path / "none"), "--json"])
    assert missing.exit_code == 2 and "is no folder: expected one written by" in missing.output


def test_the_verb_says_what_the_page_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nestlearn.explore.serving", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    call = CliRunner().invoke(build_entry(), ["explore", str(tmp_path)])
    assert call.exit_code == 2
    assert 'error: the page needs uvicorn, which is not installed: pip install "nestlearn[explore]"' in call.output


def test_the_verb_serves_and_opens_the_page_where_there_is_a_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = pytest.importorskip("nestlearn.explore.serving", reason='the page needs the extra "explore"')
    opened: list[str] = []
    monkeypatch.setattr(serving.Serving, "run", lambda self, begun: (begun(), self.close()))
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("nestlearn.cli.play.has_screen", lambda: True)
    for more, count in (["--no-browser"], 0), ([], 1):
        call = CliRunner().invoke(build_entry(), ["explore", str(tmp_path), *more])
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#[\w-]{32}", call.output.strip()), call.output
        assert len(opened) == count
    (tmp_path / "continuum.json").touch()
    call = CliRunner().invoke(build_entry(), ["explore", str(tmp_path)])
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/read#[\w-]{32}", call.output.strip()), call.output


@pytest.mark.slow
def test_nothing_of_it_imports_torch() -> None:
    code = "import sys, nestlearn.explore.answers, nestlearn.explore.serving; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


HOSTILE = [
    b"\xff\xfe\x00\n",
    b"[" * 100_000 + b"\n",
    b"null\n3\n[]\n",
    b'{"lanes": {"a": 1}}\n{"lanes": [1, null, {"name": 3}]}\n',
    b'{"step": 1e999, "update": [1]}\n{"step": -3}\n{"step": true}\n{"step": "x"}\n{"step": ' + b"9" * 400 + b"}\n",
    b'{"step": 50, "update": [1e999, "x", {}, [], 1e300, null, 7, 8, 9], "surprise": 4}\n',
    b'{"kind": "train", "run": "mine", "step": 1e999, "loss": "x"}\n',
    b'{"kind": "run", "key": "mine", "test": {"loss": 1e999}}\n',
    b'{"kind": "train", "run": ["x"], "step": 1}\n{"kind": "run", "key": "\\ud800<img src=x onerror=alert(1)>"}\n',
    b'{"run": "mine", "step": 99, "memory": {}, "surprise": 1}\n',
    b'{"kind": "train", "run": "mine", "step": 3, "loss": NaN}\n',
]


@pytest.mark.parametrize("lines", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("name", ["writes.jsonl", "metrics.jsonl", "events.jsonl"])
def test_files_may_hold_anything(name: str, lines: bytes, tmp_path: Path) -> None:
    folder = made(tmp_path / "mine", 5)
    with (folder / name).open("ab") as file:
        file.write(lines)
    shelf = Shelf([tmp_path])
    told = everything(shelf)
    json.dumps(told, allow_nan=False).encode()
    assert len(told["runs"]) in (1, 2) and told["runs"][0]["run"] == "mine"
    assert frame(shelf.runs()[0], Cursor())


def test_folders_may_hold_anything(tmp_path: Path) -> None:
    folder = made(tmp_path / "mine", 5, frozen=())
    for name, content in (
        ("7.json", b"\x00"),
        ("x.json", b"{}"),
        ("9.json", b'{"parameters": [1e999]}'),
        ("8.json", b"[" * 9999),
    ):
        (folder / "frozen" / name).write_bytes(content)
    (folder / "frozen" / "5.json").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    run = only(Shelf([tmp_path]))
    assert run.frozen() == [5, 7, 8, 9] and run.step(9)["parameters"] == [None]
    for step in (5, 7, 8, 10):
        with pytest.raises(RunFolderError):
            run.step(step)
    (folder / "record.json").write_text('{"run": "mine", "systems": {"a": 1}}')
    assert run.systems() == []
    os.mkfifo(folder / "events.jsonl")
    assert only(Shelf([tmp_path])).latest == 5


def test_a_folder_that_is_shut_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "mine", 2)
    (tmp_path / "shut").mkdir()
    stat = os.stat

    def refuse(path: Any, **how: Any) -> os.stat_result:  # as the system does whoever is not root
        if "/shut/" in str(path):
            raise PermissionError(13, "Permission denied")
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", refuse)
    assert only(Shelf([tmp_path])).key == "mine"


def test_a_folder_that_is_reached_in_two_ways_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "runs" / "mine", 2)
    monkeypatch.chdir(tmp_path)
    shelf = Shelf([Path("runs"), folder])
    assert [run.folder for run in shelf.refresh()] == [Path("runs/mine")]
    shelf.add(made(tmp_path / "runs" / "mine-fork1", 2))  # as the server does, by the whole path
    assert [run.folder.name for run in shelf.refresh()] == ["mine", "mine-fork1"]


def test_a_pretrained_model_is_no_run_and_one_without_a_continuum_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "runs" / "mine", 2)
    model = tmp_path / "runs" / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"a pretrained model without a continuum.*expected a continuum\.json"):
        Shelf([model])
    assert Shelf([tmp_path]).stacked() == []
    (model / "continuum.json").write_text("[" * 9999)  # what is in it is looked at when it is opened
    shelf = Shelf([tmp_path, model])
    assert [run.key for run in shelf.refresh()] == ["mine"] and shelf.stacked() == [model]
    assert [run["run"] for run in everything(shelf)["runs"]] == ["mine"]
    assert Shelf([model]).refresh() == []
    (model / "continuum.json").unlink()
    made(model / "record", 2)  # of its training
    assert [run.key for run in Shelf([model]).refresh()] == ["mine"]


def test_a_file_that_is_cut_back_and_grows_again_is_read_from_its_start_without_a_note(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    tail = Tail(path)

    def read() -> list[int]:
        tail.changed()
        return [each["step"] for each in tail.new()]

    path.write_text("".join(f'{{"step": {step}, "was": 0}}\n' for step in range(1, 6)))
    assert read() == [1, 2, 3, 4, 5] and read() == []
    with path.open("r+") as file:  # as a run that goes on does it: the same file, soon as long as before
        file.truncate(2 * len('{"step": 1, "was": 0}\n'))
        file.seek(0, os.SEEK_END)
        file.write("".join(f'{{"step": {step}, "now": 10}}\n' for step in range(3, 8)))
    assert read() == [1, 2, 3, 4, 5, 6, 7] and tail.generation == 1 and tail.note == ""
    path.write_text("no line\n")
    assert read() == [] and "is no JSON" in tail.note
    path.write_text('{"step": 1}\n')
    assert read() == [1] and tail.note == ""
    # Replaced between the two calls: what came is passed over until it is known to be another file.
    assert not tail.changed()
    (tmp_path / "other").write_text("".join(f'{{"step": {step}, "then": 200}}\n' for step in range(1, 4)))
    os.replace(tmp_path / "other", path)
    assert list(tail.new()) == [] and tail.note == ""
    assert read() == [1, 2, 3] and tail.note == ""


def test_there_are_only_so_many_lanes(tmp_path: Path) -> None:
    folder = made(tmp_path / "mine", 2, [{**LANES[0], "name": f"lane {i}"} for i in range(MOST_LANES + 5)])
    assert len(only(Shelf([folder])).lanes.facts) == MOST_LANES


def test_steps_that_go_back_are_passed_over() -> None:
    curve = Curve()
    for step in (1, 5, 3, 6):
        curve.add(step, 0.0, 1.0)
    assert curve.steps.tolist() == [1, 5, 6] and curve.after(5) == 2
