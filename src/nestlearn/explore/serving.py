"""Serve runs until the user has seen enough."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

import uvicorn

from nestlearn.explore.reading import Readings
from nestlearn.explore.runs import Shelf
from nestlearn.explore.server import HOST, make_app

__all__ = ["Serving"]


class Serving:
    """A server that has its port, and serves when it is told to ``run``.

    Args:
        shelf: the runs.
        port: 0 takes any that is free.
        readings: what reads texts; None reads none.
        page: which one the address opens, "" or "read".

    Attributes:
        url: what a browser opens, the token in it.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, shelf: Shelf, port: int = 0, readings: Readings | None = None, page: str = "") -> None:
        self._page = page
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port))
            self._socket.listen(64)
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self.token = secrets.token_urlsafe(24)
        app = make_app(shelf, self.token, lambda: self.port, readings)
        settings = uvicorn.Config(
            app,
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=1,
            ws="websockets-sansio",
            ws_max_size=1 << 16,
            ws_per_message_deflate=False,
        )
        self._server = uvicorn.Server(settings)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/{self._page}#{self.token}"

    def run(self, begun: Callable[[], None] = lambda: None) -> None:
        """Serve until ``stop`` or an interrupt; ``begun`` is called once somebody may ask."""
        try:
            begun()  # who asks early waits: the socket listens
            self._server.run(sockets=[self._socket])
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()

    def stop(self) -> None:
        """Let ``run`` come to its end."""
        self._server.should_exit = True
