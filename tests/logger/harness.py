"""A running logger, the master's end of its channel, and the pipes of its workers."""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import entrypoint

Line = dict[str, Any]
COMMAND = str(Path(entrypoint.__file__).with_name("__main__.py"))
TIMEOUT = 20.0

# As the master executes it: the channel is descriptor 3.
EXECUTE = """
import os, sys
os.dup2({channel}, 3)
os.closerange(4, 256)
os.execv(sys.executable, [sys.executable, "-I", "-S", {command!r}, "logger"])
"""
# Where Python has no ctypes, nothing can be looked at without reading it.
WITHOUT_CTYPES = """
import os, sys
os.dup2({channel}, 3)
sys.path.insert(0, os.path.dirname(os.path.dirname({command!r})))
sys.modules["ctypes"] = None
from entrypoint.logger.main import main
sys.exit(main())
"""


class Worker:
    """What writes; its read ends are held as the master holds them."""

    def __init__(self, serial: int, flags: int = 0) -> None:
        self.serial = serial
        self.out_read, self.out = os.pipe2(os.O_CLOEXEC | flags)
        self.error_read, self.error = os.pipe2(os.O_CLOEXEC | flags)
        self.readers = [self.out_read, self.error_read]
        self._writers = {self.out, self.error}
        for fd in self.readers:
            os.set_blocking(fd, False)

    def say(self, data: bytes, fd: int | None = None) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.out if fd is None else fd, view) :]

    def left(self) -> int:
        """Bytes that wait in its standard output."""
        return int.from_bytes(fcntl.ioctl(self.out_read, 0x541B, b"\0\0\0\0"), "little")

    def end(self, *fds: int) -> None:
        """Close both of its ends, or these."""
        for fd in fds or tuple(self._writers):
            self._writers.discard(fd)
            os.close(fd)

    def close(self) -> None:
        if self._writers:
            self.end()
        for fd in self.readers:
            os.close(fd)


class Logger:
    """A logger that was started as the master starts it; its lines are read all the time, unless `reading` is off."""

    def __init__(self, *, ctypes: bool = True, reading: bool = True) -> None:
        self.code = EXECUTE if ctypes else WITHOUT_CTYPES
        self.output, self._stdout = os.pipe2(os.O_CLOEXEC)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the logger
        self.workers: dict[int, Worker] = {}
        self.written = bytearray()
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.reading = reading
        if reading:
            self._thread.start()
        self.start()

    def start(self) -> None:
        """Start it, or start it again: it is told of every worker."""
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(TIMEOUT)
        self._heard = b""
        self.messages: list[Line] = []
        code = self.code.format(channel=theirs.fileno(), command=COMMAND)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._errors,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        for worker in self.workers.values():
            self._add(worker)

    def read_from_now_on(self) -> None:
        self.reading = True
        self._thread.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()

    def worker(self, flags: int = 0) -> Worker:
        """A new worker, of slot 0 of the pool `web`."""
        worker = Worker(len(self.workers) + 1, flags)
        self.workers[worker.serial] = worker
        self._add(worker)
        return worker

    def _add(self, worker: Worker) -> None:
        text = json.dumps({"add": worker.serial, "pool": "web", "slot": 0, "pid": 1000 + worker.serial})
        socket.send_fds(self.channel, [text.encode() + b"\n"], worker.readers)

    def tell(self, **message: Any) -> None:
        self.channel.sendall(json.dumps(message).encode() + b"\n")

    def told(self, key: str) -> Line:
        """The next thing of the kind that it tells the master."""
        while True:
            for number, message in enumerate(self.messages):
                if key in message:
                    return self.messages.pop(number)
            data = self.channel.recv(1 << 16)
            assert data, f"it never told {key}: {self.story()}"
            *lines, self._heard = (self._heard + data).split(b"\n")
            self.messages += [json.loads(line) for line in lines]

    def silent(self) -> bool:
        """Whether it has told nothing more."""
        return not self.messages and not select.select([self.channel], [], [], 0)[0]

    def _read(self) -> None:
        while data := os.read(self.output, 1 << 16):
            with self._news:
                self.written += data
                self._news.notify_all()

    @property
    def lines(self) -> list[Line]:
        """Whole lines so far."""
        with self._news:
            text = bytes(self.written)
        return [json.loads(line) for line in text.split(b"\n")[:-1]]

    def wait_for(self, count: int) -> list[Line]:
        """The lines when there are so many."""
        deadline = time.monotonic() + TIMEOUT
        with self._news:
            while self.written.count(b"\n") < count:
                assert self._news.wait(deadline - time.monotonic()), f"{self.written[-2000:]!r} {self.story()}"
        return self.lines

    def finish(self) -> int:
        """Ask it to end as the master does; its exit code."""
        self.channel.shutdown(socket.SHUT_WR)
        return self.process.wait(TIMEOUT)

    def story(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode()

    def close(self) -> str:
        """End it; what it wrote to its standard error."""
        if self.process.poll() is None:
            self.kill()
        self.channel.close()
        if self._stdout >= 0:
            os.close(self._stdout)
        if self.reading:
            self._thread.join(TIMEOUT)
        os.close(self.output)
        for worker in self.workers.values():
            worker.close()
        story = self.story()
        self._errors.close()
        return story


def messages(lines: list[Line], stream: str = "stdout") -> list[str]:
    return [line["message"] for line in lines if line["stream"] == stream]


def wait_until(condition: Any, what: str) -> None:
    """Wait for what nothing announces."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what
        select.select([], [], [], 0.005)
