"""A running observer, and a master's end of its channel that answers with what the test wants."""

from __future__ import annotations

import http.client
import json
import marshal
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import entrypoint

Snapshot = dict[str, Any]
COMMAND = str(Path(entrypoint.__file__).with_name("__main__.py"))

# As the master executes it: the channel is descriptor 3, the listening sockets follow.
EXECUTE = """
import fcntl, os, sys
fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in {fds!r}]
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number)
os.closerange(3 + len(fds), 256)
os.execv(sys.executable, [sys.executable, "-I", "-S", {command!r}, "observer"])
"""


def histogram(count: int = 0) -> dict[str, Any]:
    return {"buckets": [[0.1, 0], [1, count], [10, count]], "count": count, "sum": 0.5 * count}


def worker(pool: str, slot: int, pid: int | None, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"{pool}/{slot}",
        "slot": slot,
        "pid": pid,
        "state": "ready" if pid else "backoff",
        "generation": 1,
        "start_time_seconds": 1764057600.5 if pid else None,
        "age_seconds": 12.5 if pid else None,
        "restarts": 0,
        "heartbeat_age_seconds": None,
        "resident_memory_bytes": None,
        "status": "",
        **fields,
    }


def pool(*workers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "desired": len(workers),
        "pinned": False,
        "ready": sum(one["state"] == "ready" for one in workers),
        "generation": 1,
        "state": "running",
        "restarts": 0,
        "last_error": "",
        "rollout": None,
        "workers": list(workers),
        "spawns": 0,
        "exits": {},
        "restarts_by": {},
        "timeouts": {},
        "rollouts": {},
        "scale_events": {},
        "cpu_seconds": 0.0,
        "backoff_seconds": 0.0,
        "failed": False,
        "critical": True,
        "min_ready": 1,
        "boot": histogram(),
        "lifetime": histogram(),
        "stop": histogram(),
        **fields,
    }


NOW = 1764057613.0


def rows(pool: dict[str, Any]) -> dict[str, Any]:
    """A pool as it is sent."""
    keys = ("slot", "pid", "state", "generation", "start_time_seconds", "restarts", "heartbeat_age_seconds", "status")
    told = [[worker[key] for key in keys] for worker in pool["workers"]]
    for row in told:
        row[6] = None if row[6] is None else NOW - row[6]
    return {**pool, "workers": told}


def snapshot(**pools: dict[str, Any]) -> Snapshot:
    return {
        "version": "1.2.3",
        "pid": os.getpid(),
        "phase": "running",
        "started_at": "2026-11-25T08:00:00.000Z",
        "config": {"path": "/c.yaml", "sha256": "ab" * 32, "loaded_at": "2026-11-25T08:00:00.000Z", "error": ""},
        "pools": pools,
        "sockets": {"http": {"bind": "0.0.0.0:8000", "backlog": 2048, "queued": 3, "kind": "tcp"}},
        "events": [{"time": "2026-11-25T08:00:01.000Z", "event": "worker_ready", "pool": "web", "slot": 0, "pid": 7}],
        "ready": [True, ""],
        "startup": [True, ""],
        "time": NOW,
        "master": {
            "start_time_seconds": 1764057600.25,
            "draining": False,
            "loop_lag_seconds": 0.0,
            "orphans_reaped": 0,
            "log_lines_dropped": 0,
            "notify_rejected": 0,
            "signals": {},
            "config_reload_ok": True,
            "config_reload_time": 1764057600.5,
            "oom_kills": None,
        },
    }


def listener() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0), backlog=128)
    sock.setblocking(False)
    return sock


class Master:
    """The master's end: it answers in a thread until it is told to be silent."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.asked: list[str] = []
        self.serves = threading.Event()  # it has said so
        self.snapshot = snapshot(web=pool(worker("web", 0, os.getpid()), worker("web", 1, os.getpid())))
        self.silent = threading.Event()
        self.answer: Callable[[dict[str, Any]], dict[str, Any]] = self.tell
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.send({"id": 0, "ok": True})  # the word to begin

    def tell(self, ask: dict[str, Any]) -> dict[str, Any]:
        if ask["ask"] == "ping":
            told = {key: self.snapshot[key] for key in ("phase", "ready", "startup")}
        else:
            told = {"snapshot": {**self.snapshot, "pools": {k: rows(p) for k, p in self.snapshot["pools"].items()}}}
        return {"id": ask["id"], "ok": True, **told}

    def _serve(self) -> None:
        with self.channel.makefile("rb") as lines:
            for line in lines:
                ask = json.loads(line)
                if ask == {"serves": True}:
                    self.serves.set()
                    continue
                self.asked.append(ask["ask"])
                if not self.silent.is_set():
                    self.send(self.answer(ask))

    def send(self, answer: dict[str, Any]) -> None:
        try:
            data = marshal.dumps(answer)
            self.channel.sendall(len(data).to_bytes(4, "big") + data)
        except OSError:  # the observer was killed
            pass

    def hang_up(self) -> None:
        self.channel.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self.channel.close()


class Reply:
    """What came back."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Observer:
    """An observer that was started as the master starts it."""

    def __init__(self, *sockets: socket.socket) -> None:
        self.sockets = sockets or (listener(),)
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the observer
        self.port = self.sockets[0].getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        ours, theirs = socket.socketpair()
        fds = [theirs.fileno(), *(sock.fileno() for sock in self.sockets)]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", EXECUTE.format(fds=fds, command=COMMAND)],
            stdin=subprocess.DEVNULL,
            stdout=self.errors,
            stderr=self.errors,
            pass_fds=fds,
        )
        theirs.close()
        self.master = Master(ours)

    def get(self, target: str, method: str = "GET", timeout: float = 20, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, headers=named)
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def connect(self, data: bytes = b"", window: int = 0) -> socket.socket:
        """A client that has sent this much; it may have a small window, so that the kernel holds little for it."""
        client = socket.socket()
        if window:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        client.settimeout(20)
        client.connect(("127.0.0.1", self.port))
        client.sendall(data)
        return client

    def story(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode()

    def close(self) -> str:
        """End it; returns what is wrong with it."""
        if self.process.returncode is None:
            self.master.hang_up()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "it did not end with its channel"
        finally:
            for sock in self.sockets:
                sock.close()
            story = self.story()
            self.errors.close()
        return story


def read_all(client: socket.socket, timeout: float = 20) -> bytes:
    """Everything until the other side closes."""
    deadline = time.monotonic() + timeout
    data = b""
    while select.select([client], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            piece = client.recv(1 << 16)
        except ConnectionResetError:
            return data
        if not piece:
            return data
        data += piece
    raise TimeoutError(f"it stays open after {data[-200:]!r}")


StartObserver = Callable[..., Observer]
