"""The server hands questions on to a process that reads, and serves on while it does."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from patience import PATIENCE
from served_runs import get, made, serving

pytest.importorskip("uvicorn", reason='the page needs the extra "explore"')
pytest.importorskip("websockets", reason='the page needs the extra "explore"')

from nestlearn.explore.serving import Serving

# Speaks as the process of a model does, and needs no torch: it counts without end, and ends when it is told to.
PUPPET = """
import json, sys
def tell(**told): print(json.dumps(told), flush=True)
for line in sys.stdin:
    given = json.loads(line)
    if not isinstance(given, dict): continue
    if given["do"] == "die": sys.exit()
    said = 0
    while given["do"] == "count" or said < given.get("lines", 0):
        tell(said=said)
        said += 1
        if json.loads(sys.stdin.readline()) != "more": break
    tell(done={"said": said, "argv": sys.argv[1:], "given": given})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made(tmp_path_factory.mktemp("runs") / "mine", 2)
    (folder / "model.json").write_text("{}")
    states = folder.parent / "states"
    states.mkdir()
    for name in ("one.safetensors", ".hidden.safetensors", "other.txt"):
        (states / name).touch()
    made(folder.parent / "without", 2)
    (folder.parent / "pretrained").mkdir()
    (folder.parent / "pretrained" / "continuum.json").touch()
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Serving]:
    with serving(folder.parent, command=[sys.executable, "-c", PUPPET], states=folder.parent / "states") as server:
        yield server


@pytest.fixture(scope="module")
def model(server: Serving) -> str:
    return json.loads(get(server, "/api/read")[1])["models"][0]["id"]


def post(server: Serving, question: Any, token: str | None = None, **headers: str) -> Any:
    told = {"Authorization": f"Bearer {server.token if token is None else token}", **headers}
    data = question if isinstance(question, bytes) else json.dumps(question).encode()
    return urlopen(Request(f"http://127.0.0.1:{server.port}/api/read", data, told), timeout=PATIENCE)


def said(server: Serving, question: Any) -> list[Any]:
    with post(server, question) as answer:
        return [json.loads(line) for line in answer]


def refused(server: Serving, question: Any, **more: str) -> tuple[int, str]:
    with pytest.raises(HTTPError) as error:
        post(server, question, **more)
    with error.value as answer:
        return answer.code, answer.read().decode()


def test_runs_with_a_model_pretrained_ones_and_saved_states_are_listed(server: Serving, folder: Path) -> None:
    told = json.loads(get(server, "/api/read")[1])
    assert [each["name"] for each in told["models"]] == [str(folder), str(folder.parent / "pretrained")]
    assert told["states"] == ["one"] and len({each["id"] for each in told["models"]}) == 2
    assert len(json.loads(get(server, "/api/runs")[1])["runs"]) == 2


def test_answers_come_in_their_order_from_a_process_that_stays(server: Serving, model: str, folder: Path) -> None:
    told = said(server, {"model": model, "do": "say", "lines": 5, "deep": [[1]], "text": "é\ud800\n"})
    assert [each.get("said") for each in told[:-1]] == [0, 1, 2, 3, 4]
    assert told[-1]["done"]["argv"] == [str(folder), str(folder.parent / "states")]
    assert told[-1]["done"]["given"] == {"model": model, "do": "say", "lines": 5, "text": "é\ud800\n"}


def test_the_server_serves_on_while_a_model_reads_for_one_at_a_time(server: Serving, model: str) -> None:
    with post(server, {"model": model, "do": "count"}) as endless:
        assert json.loads(endless.readline()) == {"said": 0}
        assert get(server, "/api/runs")[0] == 200
        assert json.loads(get(server, "/api/read")[1])["busy"]
        assert refused(server, {"model": model, "do": "say"})[0] == 409
    # The page is gone: the process hears of it, and is asked again.
    end = monotonic() + PATIENCE
    while json.loads(get(server, "/api/read")[1])["busy"] and monotonic() < end:
        threading.Event().wait(0.02)
    assert said(server, {"model": model, "do": "say"})[-1]["done"]["said"] == 0


def test_a_process_is_ended_when_it_is_told_to_and_begun_anew(server: Serving, model: str) -> None:
    with post(server, {"model": model, "do": "count"}) as endless:
        endless.readline()
        assert said(server, {"do": "close"}) == [{"done": None}]
        assert b"the model's process has ended" in endless.read()
    assert "the model's process has ended" in said(server, {"model": model, "do": "die"})[0]["error"]
    assert said(server, {"model": model, "do": "say", "lines": 1})[0] == {"said": 0}


def test_who_may_not_ask_is_told_nothing(server: Serving, model: str) -> None:
    question = {"model": model, "do": "say"}
    assert refused(server, question, token="wrong")[0] == 401
    assert get(server, "/api/read", token="wrong")[0] == 401
    assert refused(server, question, Origin="https://evil.example")[0] == 403
    assert refused(server, question, Host="evil.example")[0] == 403


@pytest.mark.parametrize(
    ("question", "status"),
    [
        (b"[]", 400),
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b" " * (1 << 20), 400),
        ({"model": "../..", "do": "say"}, 404),
        ({}, 404),
    ],
)
def test_what_is_no_question_is_refused(server: Serving, question: Any, status: int) -> None:
    assert refused(server, question)[0] == status
