#!/usr/bin/env python3
"""Makes requests until TERM or INT, and counts what became of every single one.

Usage: client.py HOST PORT [ONESHOT [KEEP [PAUSE]]]

ONESHOT threads use a new connection for each request, KEEP threads one connection as long as it lasts; each pauses for
PAUSE seconds after an answer. It says `loading` when the first answer is there, and at the end one line of JSON.

A request on a new connection is never made again. Who keeps a connection may find it closed when it is about to be used
again: closed before the first byte of an answer came, that request may be made once more on a new connection (RFC 9112,
9.3.1). Those are counted as `retried`; everything else that is not an answer with 200 has `failed`.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter

TIMEOUT = 10.0
TOLD = 20  # of the failures, so many are told in full


class LostError(Exception):
    """There is no answer, or not the one that was wanted."""

    def __init__(self, kind: str, data: bytes = b"") -> None:
        super().__init__(f"{kind} after {data[:200]!r}")
        self.kind = kind
        self.raced = kind in ("closed", "reset") and not data


class Client:
    """What all threads share."""

    def __init__(self, host: str, port: int, pause: float) -> None:
        # Once: a name that cannot be looked up for a moment would be a failure that says nothing of the server.
        self.address = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]), port
        self.request = f"GET / HTTP/1.1\r\nHost: {host}\r\n".encode()
        self.pause = pause
        self.stopping = threading.Event()
        self.loading = threading.Event()
        self.lock = threading.Lock()
        self.counts = Counter(oneshot=0, kept=0, retried=0)
        self.failed: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.told: list[str] = []

    def oneshot(self) -> None:
        """One connection for each request."""
        while not self.stopping.wait(self.pause):
            connection = None
            try:
                connection = self.connect()
                self.count("oneshot", self.exchange(connection, b"Connection: close\r\n")[0])
            except LostError as lost:
                self.fail("oneshot", lost)
            finally:
                if connection:
                    connection.close()

    def keep(self) -> None:
        """One connection as long as it lasts."""
        connection: socket.socket | None = None
        again = False
        while again or not self.stopping.wait(self.pause):
            used = connection is not None
            try:
                connection = connection or self.connect()
                body, last = self.exchange(connection)
                again = False
                self.count("kept", body)
            except LostError as lost:
                last = True
                again = used and lost.raced  # on a new connection then, which does not race
                if again:
                    self.count("retried")
                else:
                    self.fail("kept", lost)
            if last and connection:
                connection.close()
                connection = None
        if connection:
            connection.close()

    def connect(self) -> socket.socket:
        try:
            return socket.create_connection(self.address, TIMEOUT)
        except ConnectionRefusedError:
            raise LostError("refused") from None
        except TimeoutError:
            raise LostError("timeout") from None
        except OSError as error:
            raise LostError(f"no connection: {error.strerror}") from None

    def exchange(self, connection: socket.socket, more: bytes = b"") -> tuple[str, bool]:
        """Make a request; return the body of the answer, and whether the server closes. Raises LostError."""
        data = b""
        deadline = time.monotonic() + TIMEOUT
        try:
            connection.sendall(self.request + more + b"\r\n")
            while (size := expected(data)) is None or len(data) < size:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                piece = connection.recv(65536)
                if not piece:
                    raise LostError("closed", data)
                data += piece
        except (ConnectionResetError, BrokenPipeError):
            raise LostError("reset", data) from None
        except TimeoutError:
            raise LostError("timeout", data) from None
        head, _, body = data.partition(b"\r\n\r\n")
        if not re.match(rb"HTTP/1\.[01] 200 ", head):
            raise LostError("status", data)
        return body.decode().strip(), b"\r\nconnection: close" in head.lower() or head.startswith(b"HTTP/1.0")

    def count(self, what: str, body: str = "") -> None:
        with self.lock:
            self.counts[what] += 1
            if body:
                self.answers[body] += 1
        self.loading.set()

    def fail(self, what: str, lost: LostError) -> None:
        with self.lock:
            self.failed[lost.kind] += 1
            if len(self.told) < TOLD:
                self.told.append(f"{time.time():.3f} {what}: {lost}")


def expected(data: bytes) -> int | None:
    """The length of the whole answer, once its head is there; one without a length cannot be told from a cut one."""
    head, end, _ = data.partition(b"\r\n\r\n")
    if not end:
        return None
    length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
    if length is None:
        raise LostError("no length", data)
    return len(head) + len(end) + int(length[1])


def main(host: str, port: str, oneshot: str = "4", keep: str = "4", pause: str = "0.005") -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    client = Client(host, int(port), float(pause))
    work = [client.oneshot] * int(oneshot) + [client.keep] * int(keep)
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    while not client.loading.wait(0.1):
        if signal.sigtimedwait({signal.SIGTERM, signal.SIGINT}, 0):
            break
    else:
        print("loading", flush=True)  # noqa: T201 - a program
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    client.stopping.set()
    for thread in threads:
        thread.join()
    told = {**client.counts, "failed": client.failed, "told": client.told, "answers": client.answers}
    print(json.dumps(told))  # noqa: T201 - the same


if __name__ == "__main__":
    main(*sys.argv[1:])
