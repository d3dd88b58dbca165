"""Counts in redis once a second; speaks redis' protocol by hand, so that it needs no library."""

from __future__ import annotations

import os
import signal
import socket

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
name = os.environ.get("ENTRYPOINT_WORKER", "client")
with (
    socket.create_connection(("127.0.0.1", int(os.environ.get("REDIS_PORT", "6379"))), timeout=5) as connection,
    connection.makefile("rb") as answers,
):
    while not signal.sigtimedwait({signal.SIGTERM}, 1):
        connection.sendall(b"INCR counter\r\n")
        print(f"{name}: the counter is at {answers.readline()[1:].decode().strip()}", flush=True)
    # Proves the order of the stop: redis still answers.
    connection.sendall(b"GET counter\r\n")
    answers.readline()
    print(f"{name}: asked to stop, the last count is {answers.readline().decode().strip()}", flush=True)
