"""What the server is sent and what it answers, as JSON."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from nestlearn.foreign import parse_json

__all__ = ["asked", "told"]


def told(content: Any, status: int = 200) -> Response:
    """An answer in ASCII: what a file says need be no text that UTF-8 can hold."""
    return Response(json.dumps(content, allow_nan=False), status, media_type="application/json")


async def asked(request: Request, most: int) -> Any:
    """What a request holds, of at most so many bytes.

    Raises:
        ValueError: it is longer, or no JSON.
    """
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > most:
            raise ValueError(f"expected at most {most:,} bytes of JSON, got more")
    try:
        return parse_json(bytes(content))
    except ValueError:
        raise ValueError("expected JSON") from None
