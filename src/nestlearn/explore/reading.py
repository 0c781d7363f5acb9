"""The server's side of the reading page: a model in a process of its own, and questions that are handed on to it.

The process is begun with the first question and holds one model at a time; `nestlearn.cli.reading_job` says how it is
spoken to. Its answers are passed on as they come, each only when the one before it was taken, so that neither a long
text nor a slow page fills anybody's memory. The server itself goes on serving while a model reads.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from nestlearn.explore.messages import asked, told
from nestlearn.explore.runs import MOST_NAME, Shelf
from nestlearn.explore.states import saved
from nestlearn.foreign import printable

__all__ = ["Readings"]

MODEL = "model.json"
"""What is in the folder of a run that keeps its language model."""

MOST_BODY, MOST_LINE = 1 << 19, 1 << 22
GRACE = 2.0  # seconds


class Readings:
    """Models of run folders, and pretrained ones with a continuum, of which one may be open.

    Args:
        shelf: the folders.
        command: begins the process; the folder of the model and, if there is one, that of the states are added.
        states: the folder of saved states; None saves none.
    """

    def __init__(self, shelf: Shelf, command: Sequence[str], states: Path | None = None) -> None:
        self._shelf, self._command, self._states = shelf, list(command), states
        self._process: Process | None = None
        self._open, self._busy, self._put = "", False, False
        self._exchange: asyncio.Task[None] | None = None  # kept, or nobody would see to it

    def routes(self) -> list[Route]:
        """The addresses."""
        return [Route("/api/read", self._told, methods=["GET"]), Route("/api/read", self._asked, methods=["POST"])]

    async def _told(self, request: Request) -> Response:
        return told(await asyncio.to_thread(self.about))

    async def _asked(self, request: Request) -> Response:
        try:
            given = await asked(request, MOST_BODY)
        except ValueError as error:
            return told({"error": str(error)}, 400)
        if not isinstance(given, dict):
            return told({"error": "expected a JSON object"}, 400)
        if given.get("do") == "close":
            await self.close()
            if self._exchange is not None:
                await asyncio.wait([self._exchange], timeout=GRACE)
            return told({"done": None})
        folder = (await asyncio.to_thread(self._models)).get(str(given.get("model")))
        if folder is None:
            return told({"error": "there is no such model"}, 404)
        if self._busy:
            return told({"error": "the model is at work: wait, stop it, or close it"}, 409)
        self._busy = True
        return StreamingResponse(self._lines(str(given["model"]), folder, given), media_type="application/x-ndjson")

    def about(self) -> dict[str, Any]:
        """Which models and saved states there are."""
        models = [{"id": name, "name": printable(str(path), MOST_NAME)} for name, path in self._models().items()]
        states = None if self._states is None else saved(self._states)
        return {"models": models, "states": states, "open": self._open, "busy": self._busy}

    def _models(self) -> dict[str, Path]:
        runs = [folder.path for folder in self._shelf.folders() if os.path.isfile(folder.path / MODEL)]
        found = [*runs, *self._shelf.stacked()]
        return {hashlib.sha256(str(path.resolve()).encode("utf-8", "replace")).hexdigest()[:16]: path for path in found}

    async def _lines(self, name: str, folder: Path, given: dict[str, Any]) -> AsyncIterator[bytes]:
        """The answers to a question. The exchange has a task of its own, which outlives a page that is gone."""
        lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._put, gone, ended = False, asyncio.Event(), False
        self._exchange = asyncio.create_task(self._ask(name, folder, given, lines, gone))
        try:
            while not ended:
                line = await lines.get()
                ended = _ends(line)
                yield line
                if not ended:
                    self._say("more")
        finally:
            gone.set()
            if not ended and self._put:
                self._say("stop")

    async def _ask(
        self, name: str, folder: Path, given: dict[str, Any], lines: asyncio.Queue[bytes], gone: asyncio.Event
    ) -> None:
        """Put a question, and the answers into the queue; the last one always comes."""
        line = b""
        try:
            process = await self._process_of(name, folder)
            assert process.stdout is not None, "it was asked for"
            if gone.is_set():  # nobody waits for it any more
                given = {"do": "open"}
            self._put = not gone.is_set()
            self._say({key: value for key, value in given.items() if isinstance(value, str | int | float)})
            while not _ends(line) and (line := await process.stdout.readline()):
                if not _ends(line):
                    lines.put_nowait(line)
        except (OSError, ValueError) as error:
            line = json.dumps({"error": f"the model's process cannot be spoken to: {error}"}).encode() + b"\n"
        if not line:
            ended = "the model's process has ended: the terminal of `nestlearn explore` may say why"
            line = json.dumps({"error": ended}).encode() + b"\n"
            self._process, self._open = None, ""
        self._busy = False
        lines.put_nowait(line)

    async def _process_of(self, name: str, folder: Path) -> Process:
        if self._process is None or self._process.returncode is not None or self._open != name:
            await self.close()
            self._busy = True
            states = [] if self._states is None else [str(self._states)]
            words = [*self._command, str(folder), *states]
            # A session of its own: an interrupt at the terminal is the server's, and with it goes the standard input.
            self._process = await asyncio.create_subprocess_exec(
                *words, stdin=PIPE, stdout=PIPE, limit=MOST_LINE, start_new_session=True
            )
            self._open = name
        return self._process

    def _say(self, word: Any) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(word).encode() + b"\n")

    async def close(self) -> None:
        """End the process, whatever it is doing."""
        process, self._process, self._open = self._process, None, ""
        if process is not None and process.returncode is None:
            process.kill()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GRACE)


def _ends(line: bytes) -> bool:
    return line.startswith((b'{"done"', b'{"error"', b'{"about"'))
