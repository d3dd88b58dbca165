"""A minimal WSGI application that tells which worker answered: the gunicorn whose child runs this code."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    body = f"hello from {os.environ.get('ENTRYPOINT_WORKER', 'nobody')}, pid {os.getppid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
