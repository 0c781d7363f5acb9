"""Forks that are asked for: what becomes a command and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served_runs import get, made, serving

pytest.importorskip("starlette", reason='the page needs the extra "explore"')
pytest.importorskip("uvicorn", reason='the page needs the extra "explore"')

from nestlearn.explore import Shelf, forking
from nestlearn.explore.forking import Forks
from nestlearn.explore.runs import Run
from nestlearn.explore.serving import Serving

KEY = "digits/Muon/lr=0.05/seed3/steps40-0123abcd"


def trained(folder: Path) -> Run:
    """A folder of which the page believes that it was trained."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("kind: train\n")
    row = {"kind": "train", "run": KEY, "step": 20, "seconds": 1, "loss": 0.5}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    for seed, step in ((3, 20), (3, 10), (1, 5)):
        (folder / "checkpoints" / f"seed{seed}-step{step:08d}-{'a' * 16}.pt").touch()
    (folder / "checkpoints" / "seed3-step00000030.pt").touch()
    (run,) = Shelf([folder]).refresh()
    return run


class Started:
    """In the place of a process: what it was started with, and whether it goes on."""

    commands: list[list[str]] = []  # noqa: RUF012
    status: int | None = None

    def __init__(self, command: list[str], **how: Any) -> None:
        assert how["start_new_session"]
        self.pid, self.returncode = 77, 2
        self.commands.append(command)

    def poll(self) -> int | None:
        return self.status


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> type[Started]:
    class Mine(Started):
        commands: list[list[str]] = []  # noqa: RUF012

    monkeypatch.setattr(forking.subprocess, "Popen", Mine)
    return Mine


def test_what_is_asked_becomes_a_command_and_one_trains_at_a_time(
    tmp_path: Path, started: type[Started], request: pytest.FixtureRequest
) -> None:
    run, forks = trained(tmp_path / "mine"), Forks()
    request.addfinalizer(forks.close)
    assert run.checkpoints() == [10, 20]
    forks.start(run, {"step": 10, "without": "slow", "settings": {"optimizer.lr": 0.5, "task.noisy": True}})
    folder = (tmp_path / "mine").resolve()
    assert started.commands[0] == [
        *(sys.executable, "-P", "-m", "nestlearn", "train", "--fork", f"{folder}@10", "--seeds", "3", "--quiet"),
        *("--set", "optimizer.lr=0.5", "--set", "task.noisy=true", "--without", "slow"),
        *("--out", f"{folder}-fork1"),
    ]
    with pytest.raises(RuntimeError, match=r"one fork at a time: .*mine-fork1 trains still.*kill 77"):
        forks.start(run, {"step": 20})
    assert forks.refused() == ""
    started.status = 2
    assert forks.refused() == "the fork ended with status 2"
    forks.folder.mkdir()
    forks.start(run, {"step": 20})
    assert started.commands[1][-1] == f"{folder}-fork2" and forks.folder.name == "mine-fork2"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ([1], 'expected {"step": 300'),
        ({"step": 10, "out": "/etc"}, 'expected {"step": 300'),
        ({"step": 30}, "one of 10, 20, got 30"),
        ({"step": True}, "one of 10, 20, got True"),
        ({"step": 10, "without": "evil:part"}, "without: expected the name of a part"),
        ({"step": 10, "without": ["slow"]}, "without: expected the name of a part"),
        ({"step": 10, "settings": {"optimizer.name": "SGD"}}, "settings: expected those of the optimizer"),
        ({"step": 10, "settings": {"out": 1}}, "settings: expected those of the optimizer"),
        ({"step": 10, "settings": {"log": "wandb"}}, "settings: expected those of the optimizer"),
        ({"step": 10, "settings": {"task.files": "../x"}}, "settings: expected a number or a word for task.files"),
        ({"step": 10, "settings": {"optimizer.lr": "os:system"}}, "settings: expected a number or a word"),
        ({"step": 10, "settings": {"optimizer.lr": {"ramp": 1}}}, "settings: expected a number or a word"),
    ],
)
def test_no_words_become_a_path_or_a_module(tmp_path: Path, started: type[Started], asked: Any, why: str) -> None:
    run = trained(tmp_path / "mine")
    with pytest.raises(ValueError, match=why):
        Forks().start(run, asked)
    assert started.commands == []


def test_a_record_has_nothing_to_be_forked(tmp_path: Path, started: type[Started]) -> None:
    (run,) = Shelf([made(tmp_path / "mine", 3)]).refresh()
    assert run.checkpoints() == [] and run.forked() is None
    with pytest.raises(ValueError, match="one of none, got 3"):
        Forks().start(run, {"step": 3})


def test_a_fork_says_where_it_comes_from_and_what_it_says_is_not_trusted(tmp_path: Path) -> None:
    parent, run = trained(tmp_path / "mine"), trained(tmp_path / "off")
    facts = {
        "folder": str(tmp_path / "mine"),
        "run": KEY,
        "step": 10,
        "changed": ["optimizer.lr: was 1, now \x1b[2", 3],
    }
    (tmp_path / "off" / "fork.json").write_text(json.dumps(facts))
    told = run.forked()
    assert told is not None and told["id"] == parent.id and told["step"] == 10
    assert len(told["changed"]) == 1 and "\x1b" not in told["changed"][0]
    (tmp_path / "loop").symlink_to("loop")
    names = ("a\0b", "\ud800", str(tmp_path / "loop"))
    for wrong in ({**facts, "step": "1"}, {"run": [KEY]}, *({**facts, "folder": name} for name in names)):
        (tmp_path / "off" / "fork.json").write_text(json.dumps(wrong))
        assert run.forked() is None


@pytest.fixture
def server(tmp_path: Path, started: type[Started]) -> Iterator[Serving]:
    trained(tmp_path / "mine")
    with serving(tmp_path) as server:
        yield server


def test_who_may_not_ask_starts_nothing(server: Serving, started: type[Started]) -> None:
    (run,) = json.loads(get(server, "/api/runs")[1])["runs"]
    path, asked = f"/api/runs/{run['id']}/fork", json.dumps({"step": 10}).encode()
    assert run["checkpoints"] == [10, 20]
    assert get(server, path)[0] == 405
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
        assert get(server, path, sent=asked, **headers)[:2] == (403, b"")
    assert get(server, path, "x" * 32, sent=asked)[0] == 401
    assert get(server, "/api/runs/0000/fork", sent=asked)[0] == 404
    for wrong, why in ((b"{", "expected JSON"), (b"[" * 99_999, "at most 65,536 bytes"), (b"{}", "step: expected")):
        status, content, _ = get(server, path, sent=wrong)
        assert status == 400 and why in json.loads(content)["error"]
    assert started.commands == []


def test_what_the_process_says_is_the_answer(
    server: Serving, started: type[Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = json.loads(get(server, "/api/runs")[1])["runs"]
    path, asked = f"/api/runs/{run['id']}/fork", json.dumps({"step": 10}).encode()
    monkeypatch.setattr("nestlearn.explore.server.BEGUN", 0.05)
    assert get(server, path, sent=asked)[0] == 504
    status, content, _ = get(server, path, sent=asked)
    assert status == 409 and "trains still" in json.loads(content)["error"]
    started.status = 2
    status, content, _ = get(server, path, sent=asked)
    assert (status, json.loads(content)["error"]) == (400, "the fork ended with status 2")
    assert len(started.commands) == 2
