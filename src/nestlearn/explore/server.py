"""A server for the browser of this machine: the page, the data of runs as JSON, and frames while a run trains.

It listens on 127.0.0.1 alone. Data are given to who has the token, which the address that is opened carries behind its
``#``, where no other server sees it; a request that names another host or comes from the page of another origin gets
nothing. Files are read in one thread of their own, so that the numbers of one answer belong together, and only for runs
that somebody looks at.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from nestlearn.errors import NestlearnError
from nestlearn.explore.answers import MOST_POINTS, POINTS, notes, score, series
from nestlearn.explore.forking import Forks
from nestlearn.explore.frames import Cursor, frame
from nestlearn.explore.messages import asked, told
from nestlearn.explore.reading import Readings
from nestlearn.explore.runs import Folder, Run, Shelf

__all__ = ["TICK", "make_app"]

TICK = 1 / 15
"""Seconds from one look at the files to the next."""

BEGUN = 120
"""Seconds in which a fork has to begin."""

MOST_ASKED = 1 << 16
HOST = "127.0.0.1"
PROTOCOL = "nestlearn"
KINDS = {"js": "text/javascript", "css": "text/css", "html": "text/html"}
STATIC = {
    "": ("explore", "page.html"),
    **{
        name: ("explore", name)
        for name in ("page.js", "live.js", "score.js", "step.js", "charts.js", "fork.js", "page.css")
    },
    "read": ("explore", "read.html"),
    **{name: ("explore", name) for name in ("read.js", "readings.js", "read.css")},
    **{f"vendor/{name}": ("explore/vendor", name) for name in ("uPlot.esm.js", "uPlot.min.css")},
    **{f"play/{name}": ("play", name) for name in ("nesting.js", "svg.js", "colours.css", "nesting.css")},
    "saving.js": ("explore", "saving.js"),
}
"""Addresses of files, and in which folder of the package they lie."""

Answer = Callable[[Request, Run], Any]


class Guard:
    """Passes on what comes from this machine's own page, data only with the token, and gives nothing to the rest."""

    def __init__(self, app: ASGIApp, port: Callable[[], int], token: str) -> None:
        self._app, self._port, self._token = app, port, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        connection = HTTPConnection(scope)
        hosts = {f"{name}:{self._port()}" for name in (HOST, "localhost")}
        host, origin = connection.headers.get("host"), connection.headers.get("origin")
        strange = host not in hosts or (origin is not None and origin != f"http://{host}")
        if strange or (scope["type"] == "websocket" and origin is None):
            if scope["type"] == "websocket":
                return await send({"type": "websocket.close", "code": 1008})
            return await Response(status_code=403)(scope, receive, send)

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_headers(str(host))]
            await send(message)

        given = connection.headers.get("authorization", "").removeprefix("Bearer ")
        data = scope["type"] == "http" and scope["path"].startswith("/api/")
        refused = data and not _same(given, self._token)
        return await (told({"error": REFUSED}, 401) if refused else self._app)(scope, receive, answered)


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _headers(host: str) -> list[tuple[bytes, bytes]]:
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    said = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }
    return [(name.encode(), value.encode()) for name, value in said.items()]


def make_app(shelf: Shelf, token: str, port: Callable[[], int], readings: Readings | None = None) -> ASGIApp:
    """The server as an ASGI application.

    Args:
        shelf: the runs.
        token: what a request for data has to carry, as ``Authorization: Bearer TOKEN``.
        port: says where it listens, when it does.
        readings: what reads texts; None reads none.
    """
    return Guard(_Server(shelf, token, readings).app(), port, token)


class _Server:
    def __init__(self, shelf: Shelf, token: str, readings: Readings | None) -> None:
        self._shelf, self._token, self._readings = shelf, token, readings
        self._reader = ThreadPoolExecutor(1, "explore")
        self._read_at: dict[int, float] = {}
        self._forks = Forks()

    def app(self) -> Starlette:
        routes: list[Any] = [Route(f"/{name}", self._file, methods=["GET"]) for name in STATIC]
        routes += [  # all of it below /api/: there the guard asks for the token
            Route("/api/runs", self._runs),
            *(Route(f"/api/runs/{{run}}{path}", self._of_run(answer)) for path, answer in ANSWERS.items()),
            Route("/api/runs/{run}/fork", self._fork, methods=["POST"]),
            WebSocketRoute("/api/live", self._live),
            *(self._readings.routes() if self._readings else ()),
        ]

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            self._forks.close()
            if self._readings:
                await self._readings.close()
            self._reader.shutdown(wait=False, cancel_futures=True)

        return Starlette(routes=routes, lifespan=lifespan)

    async def _reading(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._reader, work)

    def _file(self, request: Request) -> Response:
        folder, name = STATIC[request.url.path.removeprefix("/")]
        content = files("nestlearn").joinpath(*folder.split("/"), name).read_bytes()
        return Response(content, media_type=f"{KINDS[name.rpartition('.')[2]]}; charset=utf-8")

    async def _runs(self, request: Request) -> Response:
        def work() -> dict[str, Any]:
            return {"runs": [run.to_dict() for run in self._shelf.refresh()], "notes": notes(self._shelf)}

        return told(await self._reading(work))

    def _of_run(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            def work() -> Any:
                found = self._find(request.path_params["run"])
                return None if found is None else answer(request, found[1])

            try:
                found = await self._reading(work)
            except NestlearnError as error:
                return told({"error": str(error)}, 404)
            except ValueError as error:
                return told({"error": str(error)}, 400)
            return told({"error": "there is no such run"}, 404) if found is None else told(found)

        return endpoint

    async def _fork(self, request: Request) -> Response:
        """Start a fork, and tell of its run as soon as there is one."""
        found = await self._reading(lambda: self._find(request.path_params["run"]))
        if found is None:
            return told({"error": "there is no such run"}, 404)
        try:
            self._forks.start(found[1], await asked(request, MOST_ASKED))
        except ValueError as error:
            return told({"error": str(error)}, 400)
        except RuntimeError as error:
            return told({"error": str(error)}, 409)
        folder, until = self._forks.folder, monotonic() + BEGUN
        while monotonic() < until:
            if (run := await self._reading(partial(self._begun, folder))) is not None:
                return told(run, 201)
            if why := self._forks.refused():
                return told({"error": why}, 400)
            await asyncio.sleep(TICK)
        return told({"error": f"nothing was seen of {folder} yet, after {BEGUN} seconds"}, 504)

    def _begun(self, folder: Path) -> dict[str, Any] | None:
        """What is told of the run in a folder, if there is one already."""
        if not (folder / "config.yaml").is_file():
            return None
        self._shelf.add(folder)
        return next((run.to_dict() for run in self._shelf.refresh() if run.folder.resolve() == folder), None)

    def _find(self, name: str) -> tuple[Folder, Run] | None:
        """A run, read anew unless that was done within the tick."""
        if (found := self._shelf.find(name)) is None:
            self._shelf.refresh()
            found = self._shelf.find(name)
        if found is not None and monotonic() - self._read_at.get(id(found[0]), -1.0) >= TICK / 2:
            found[0].refresh()
            self._read_at[id(found[0])] = monotonic()
        return found

    async def _live(self, socket: WebSocket) -> None:
        """Frames of one run after the other, as the page asks; a new one is made only when the last one is gone."""
        offered = socket.headers.get("sec-websocket-protocol", "").replace(" ", "").split(",")
        if len(offered) != 2 or offered[0] != PROTOCOL or not _same(offered[1], self._token):
            return await socket.close(1008)
        await socket.accept(PROTOCOL)
        questions: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1)
        listener = asyncio.create_task(_listen(socket, questions))
        with suppress(WebSocketDisconnect, RuntimeError):  # gone in the middle of a frame, or before the last word
            wanted, cursor = "", Cursor()
            while not listener.done():
                if not questions.empty():
                    wanted, cursor = _wanted(questions.get_nowait())
                data = await self._reading(partial(self._frame, wanted, cursor))
                if data is not None:
                    await socket.send_bytes(data)
                await asyncio.wait([listener], timeout=TICK)
            await socket.close(1008)
        listener.cancel()
        return None

    def _frame(self, wanted: str, cursor: Cursor) -> bytes | None:
        found = self._find(wanted) if wanted else None
        return None if found is None else frame(found[1], cursor)


REFUSED = "expected the header Authorization: Bearer TOKEN, with the token that `nestlearn explore` printed"


async def _listen(socket: WebSocket, questions: asyncio.Queue[dict[str, Any]]) -> None:
    """Keep the latest thing that was asked; ends with the connection, or with something that is no question."""
    try:
        while True:
            given = json.loads(await socket.receive_text())
            if not questions.empty():
                questions.get_nowait()
            questions.put_nowait(given)
    except (WebSocketDisconnect, ValueError, KeyError, RuntimeError):
        return


def _wanted(given: Any) -> tuple[str, Cursor]:
    """Which run, and what the page knows of it already."""
    given = given if isinstance(given, dict) else {}
    known = given.get("known") if isinstance(given.get("known"), dict) else {}

    def number(name: str, usual: float) -> float:
        value = known.get(name, usual)
        return float(value) if type(value) in (int, float) and abs(value) < 1 << 53 else usual

    points = given.get("points")
    fitting = points if type(points) is int and 2 <= points <= MOST_POINTS else POINTS
    train, validation, score = (number(name, -1) for name in ("train", "validation", "score"))
    cursor = Cursor(int(number("generation", 0)), train, validation, score, points=fitting)
    return str(given.get("run", ""))[:64], cursor


def _number(request: Request, name: str, usual: float) -> float:
    text = request.query_params.get(name, "")
    try:
        return float(text) if text else usual
    except ValueError:
        raise ValueError(f"{name}: expected a number, got {text[:80]!r}") from None


def _points(request: Request) -> int:
    points = _number(request, "points", POINTS)
    if not 2 <= points <= MOST_POINTS:
        raise ValueError(f"points: expected a number from 2 to {MOST_POINTS:,}, got {points:g}")
    return int(points)


def _step(request: Request, run: Run) -> dict[str, Any]:
    text = request.path_params["step"]
    if not text.isdecimal() or len(text) > 16:
        raise ValueError(f"step: expected a whole number, got {text[:80]!r}")
    return run.step(int(text))


ANSWERS: dict[str, Answer] = {
    "": lambda request, run: run.to_dict(),
    "/series": lambda request, run: series(run, _points(request)),
    "/score": lambda request, run: score(
        run, _points(request), _number(request, "from", 0), _number(request, "to", float("inf"))
    ),
    "/steps/{step}": _step,
    "/systems": lambda request, run: {"systems": run.systems()},
}
"""What is told of a run, by the end of its address."""
