"""Who asks in the right way is told; everybody else gets nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from served_runs import get, grow, made, serving, unpacked

pytest.importorskip("starlette", reason='the page needs the extra "explore"')
pytest.importorskip("uvicorn", reason='the page needs the extra "explore"')
client = pytest.importorskip("websockets.sync.client", reason='the page needs the extra "explore"')

from nestlearn.explore.server import STATIC  # noqa: E402
from nestlearn.explore.serving import Serving  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("runs") / "mine", 40)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Serving]:
    with serving(folder) as server:
        yield server


def told(server: Serving, path: str, status: int = 200) -> Any:
    found, content, _ = get(server, path)
    assert found == status, content
    return json.loads(content)


@pytest.fixture
def run(server: Serving) -> str:
    return f"/api/runs/{told(server, '/api/runs')['runs'][0]['id']}"


def live(server: Serving, token: str | None = None, **more: Any) -> Any:
    given = {"origin": f"http://127.0.0.1:{server.port}", "subprotocols": ["nestlearn", token or server.token], **more}
    return client.connect(f"ws://127.0.0.1:{server.port}/api/live", **given)


def test_data_are_told_as_json(server: Serving, run: str) -> None:
    assert told(server, run)["run"] == "mine"
    assert len(told(server, f"{run}/series?points=10")["train"]["step"]) == 10
    assert told(server, f"{run}/score?from=5&to=8")["steps"] == [5, 6, 7, 8]
    assert told(server, f"{run}/steps/30")["step"] == 30
    assert told(server, f"{run}/systems")["systems"][0]["name"] == "Muon"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/steps/31", 404, "step 31 was not frozen"),
        ("/steps/..%2f..%2frecord", 404, ""),
        ("/steps/x", 400, "step: expected a whole number, got 'x'"),
        ("/score?points=1", 400, "points: expected a number from 2 to 20,000, got 1"),
        ("/score?from=x", 400, "from: expected a number, got 'x'"),
        ("/score?points=nan", 400, "points: expected a number from 2 to 20,000, got nan"),
    ],
)
def test_wrong_questions_are_answered_in_one_line(
    server: Serving, run: str, path: str, status: int, message: str
) -> None:
    found, content, _ = get(server, run + path)
    assert found == status and message in content.decode()


def test_no_run_has_another_name(server: Serving) -> None:
    assert told(server, "/api/runs/0000/series", 404) == {"error": "there is no such run"}


def test_without_the_token_nothing_is_told(server: Serving, run: str) -> None:
    data = (run, f"{run}/series", f"{run}/score", f"{run}/steps/30", f"{run}/systems")
    for path in ("/api/runs", "/api/nothing", *data):
        for token in ("", "x" * 32, "\xfc"):
            status, content, _ = get(server, path, token)
            assert status == 401 and b"mine" not in content


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
    ],
)
def test_a_foreign_origin_or_host_gets_nothing(server: Serving, headers: dict[str, str]) -> None:
    for path in ("/", "/page.js", "/api/runs"):
        assert get(server, path, **headers)[:2] == (403, b"")


def test_frames_are_refused_to_foreign_origins_and_wrong_tokens(server: Serving) -> None:
    refused: list[dict[str, Any]] = [
        {"origin": "https://evil.example"},
        {"origin": None},
        {"token": "x" * 32},
        {"subprotocols": ["nestlearn"]},
        {"subprotocols": None},
    ]
    for more in refused:
        with pytest.raises(Exception, match="HTTP 403"), live(server, **more):
            raise AssertionError(f"{more} was let in")


def test_frames_come_while_files_grow_and_a_dropped_connection_goes_on(server: Serving, folder: Path, run: str) -> None:
    name = run.rpartition("/")[2]
    with live(server) as line:
        line.send(json.dumps({"run": name, "points": 100}))
        head, blocks = unpacked(line.recv(timeout=PATIENCE))
        assert head["kind"] == "whole" and blocks["score.step"][-1] == 40
        grow(folder, 41, 42)
        head, blocks = unpacked(line.recv(timeout=PATIENCE))
        assert head["kind"] == "tail" and blocks["score.step"][0] == 41
    grow(folder, 43, 44)
    with live(server) as line:
        known = {"generation": head["generation"], "train": 42, "validation": 40, "score": 42}
        line.send(json.dumps({"run": name, "known": known}))
        head, blocks = unpacked(line.recv(timeout=PATIENCE))
        assert head["kind"] == "tail" and blocks["score.step"].tolist() == [43, 44]
        line.send("no question")
        with pytest.raises(Exception, match="1008"):
            line.recv(timeout=PATIENCE)


def test_the_page_may_load_its_own_files_and_nothing_else(server: Serving) -> None:
    for name in STATIC:
        status, content, headers = get(server, f"/{name}", "")
        assert status == 200 and content and headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';") and "unsafe" not in policy
        text = content.decode()
        if not name.startswith("vendor"):
            assert "innerHTML" not in text and "https://" not in text, name
    assert get(server, "/../server.py", "")[0] == 404 and get(server, "/vendor/README.md", "")[0] == 404


def test_what_others_wrote_is_as_they_wrote_it() -> None:
    vendor = files("nestlearn.explore").joinpath("vendor")
    digests = {
        "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
        "uPlot.esm.js": "5dd9b3281aa64b461b42d9945f6adb2649d346502b12281a9ae0d46599a80eba",
        "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    }
    for name, digest in digests.items():
        assert sha256(vendor.joinpath(name).read_bytes()).hexdigest() == digest


def test_a_port_that_is_taken_is_an_error(server: Serving, folder: Path) -> None:
    from nestlearn.explore import Shelf

    with pytest.raises(OSError, match="in use"):
        Serving(Shelf([folder]), server.port)
