"""A master's loop with a real control server in it, turned by the test itself."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from entrypoint.master.control.server import Control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Request = dict[str, Any]
NOBODY = 65534
BASE_ENV = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ENTRYPOINT_", "PYTEST", "COLUMNS"))}


class Loop:
    """As the master's: epoll, handlers, deadlines. `handle` may be replaced; the default answers `replies`."""

    def __init__(self, path: Path) -> None:
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.requests: list[tuple[int, Request]] = []
        self.replies: dict[str, dict[str, Any]] = {"ping": {"ok": True, "phase": "running"}}
        self.handle: Callable[[int, Request], None] = self.reply
        self.peers: list[Peer] = []
        self.control = Control(str(path), self.watch, self.unwatch, self._handle)

    def watch(self, fd: int, handler: Callable[[], None], mask: int) -> None:
        self.handlers[fd] = handler
        self.epoll.register(fd, mask)

    def unwatch(self, fd: int) -> None:
        del self.handlers[fd]
        self.epoll.unregister(fd)

    def _handle(self, asker: int, request: Request) -> None:
        self.requests.append((asker, request))
        self.handle(asker, request)

    def reply(self, asker: int, request: Request) -> None:
        self.control.answer(asker, self.replies.get(request["ask"], {"ok": True}))

    def turn(self, timeout: float = 0) -> int:
        """One turn; how many descriptors had something."""
        ready = self.epoll.poll(max(0.0, min(timeout, self.control.deadline - time.monotonic())), 64)
        for fd, _ in ready:
            if fd in self.handlers:
                self.handlers[fd]()
        if self.control.deadline <= (now := time.monotonic()):
            self.control.due(now)
        return len(ready)

    def settle(self) -> None:
        """Turn until nothing happens."""
        while self.turn():
            pass

    def until(self, condition: Callable[[], Any], timeout: float = 15) -> Any:
        deadline = time.monotonic() + timeout
        while not (result := condition()):
            assert time.monotonic() < deadline, "it never came true"
            self.turn(0.02)
        return result

    def connect(self) -> Peer:
        self.peers.append(Peer(self))
        return self.peers[-1]

    def close(self) -> None:
        for peer in self.peers:
            peer.sock.close()
        self.control.close()
        with contextlib.suppress(OSError):  # a test has done so
            self.epoll.close()

    def fill(self) -> list[Peer]:
        """Connect until the queue of the server is full."""
        peers = []
        while True:
            try:
                peers.append(self.connect())
            except BlockingIOError:
                return peers

    def ask(self, line: bytes) -> list[dict[str, Any]]:
        """The answers to one line, to the end of the connection."""
        with self.connect() as peer:
            peer.send(line)
            return peer.rest()

    def start(self, *argv: str, **options: Any) -> Running:
        return Running(self, argv, options)

    def run(self, *argv: str, **options: Any) -> Running:
        """Run a command to its end, the server at work meanwhile."""
        running = self.start(*argv, **options)
        running.wait()
        return running


class Peer:
    """A client without any of the project's code."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.setblocking(False)
        try:
            self.sock.connect(loop.control.path)
        except BlockingIOError:
            self.sock.close()
            raise
        self.got = b""
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send, as far as the server takes it."""
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                self.loop.turn()
            except OSError:  # hung up in the middle
                return

    def read(self) -> None:
        """Everything that is there."""
        while not self.ended:
            try:
                data = self.sock.recv(1 << 16)
            except BlockingIOError:
                return
            except ConnectionResetError:  # the server closed before it had read everything
                data = b""
            self.got += data
            self.ended = not data

    def line(self) -> dict[str, Any]:
        """The next answer."""

        def complete() -> bool:
            self.read()
            return b"\n" in self.got

        self.loop.until(complete)
        line, _, self.got = self.got.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def rest(self) -> list[dict[str, Any]]:
        """Every answer until the server hangs up."""

        def complete() -> bool:
            self.read()
            return self.ended

        self.loop.until(complete)
        return [json.loads(line) for line in self.got.splitlines()]


class Running:
    """A command of ours under way."""

    def __init__(self, loop: Loop, argv: tuple[str, ...], options: dict[str, Any]) -> None:
        self.loop = loop
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - live as long as this
        options = {"stdin": subprocess.DEVNULL, "env": BASE_ENV, "cwd": "/", **options}
        options = {"stdout": self._files[0], "stderr": self._files[1], **options}
        self.process = subprocess.Popen(argv, **options)
        self.code: int | None = None

    def wait(self) -> int:
        code: int = self.loop.until(lambda: (c := self.process.poll()) is not None and (c + 1000)) - 1000
        self.code = code
        assert "Traceback" not in self.err
        return code

    def _text(self, number: int) -> str:
        size = os.fstat(self._files[number].fileno()).st_size
        return os.pread(self._files[number].fileno(), size, 0).decode()

    @property
    def out(self) -> str:
        return self._text(0)

    @property
    def err(self) -> str:
        return self._text(1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        for file in self._files:
            file.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    path = Path(tempfile.mkdtemp(prefix="control-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def loop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """A server that listens."""
    one = Loop(folder / "control.sock")
    one.control.open()
    started: list[Running] = []
    begin = one.start

    def start(*argv: str, **options: Any) -> Running:
        started.append(begin(*argv, **options))
        return started[-1]

    monkeypatch.setattr(one, "start", start)
    yield one
    for running in started:
        running.close()
    one.close()
    assert not one.handlers, "something is still watched after the close"
