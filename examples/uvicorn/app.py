"""A minimal ASGI application that tells which worker answered."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

BODY = f"hello from {os.environ.get('ENTRYPOINT_WORKER', 'nobody')}, pid {os.getpid()}\n".encode()


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})
