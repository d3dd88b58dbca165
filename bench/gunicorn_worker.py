"""What gunicorn runs: an application that is never called, and a hook that reports like `worker.c`.

Gunicorn forks its workers instead of executing a program, so its worker is a Python process. The hook runs when the
worker has loaded the application and is about to serve.
"""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def app(_environ: dict[str, object], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """Answer any request with nothing."""
    start_response("204 No Content", [])
    return ()


def post_worker_init(_worker: object) -> None:
    """Write the record {pid, CLOCK_MONOTONIC in ns} to the FIFO of the bench."""
    record = struct.pack("=qq", os.getpid(), time.monotonic_ns())
    fd = os.open(os.environ["BENCH_FIFO"], os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, record)
    finally:
        os.close(fd)
