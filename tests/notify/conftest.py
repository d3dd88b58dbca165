"""A channel, and processes that speak to it."""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from entrypoint.master.notify.channel import Channel, Message, Read

Say = Callable[..., None]
Run = Callable[..., "Worker"]

# What a worker is made of: it speaks, tells that it did, and stays until it is let go.
PRELUDE = """
import os, socket, sys

def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text, "\\0" + os.environ["NOTIFY_SOCKET"][1:])

def stay():
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
"""


class Worker:
    """A process in a group of its own, as the master starts them; with it goes everything that holds its input."""

    def __init__(self, argv: list[str], address: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
            env={**os.environ, "NOTIFY_SOCKET": address},
            **options,
        )
        self.pid = self.process.pid

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 20)[0], "it said nothing"
        line: str = self.process.stdout.readline().decode().strip()
        assert line, "it ended"
        return line

    def stop(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()
        self.process.stdout.close()


class Ear:
    """Reads a channel as the master's loop does: when the kernel says that there is something."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.refused = 0
        self.reads: list[Read] = []
        self.messages: list[Message] = []

    def until(self, condition: Callable[[Ear], bool], *, pid: int, uid: int = os.getuid(), most: int = 32) -> None:
        while not condition(self):
            said = f"{self.messages}, refused {self.refused}"
            assert select.select([self.channel.fd], [], [], 20)[0], f"nothing more came after {said}"
            self._read(pid, uid, most)

    def until_line(self, worker: Worker, *, pid: int = 0, uid: int = os.getuid()) -> str:
        """Read, on behalf of `pid` if that is another, until the worker prints a line."""
        assert worker.process.stdout is not None
        out = worker.process.stdout.fileno()
        while out not in (ready := select.select([self.channel.fd, out], [], [], 20)[0]):
            assert ready, "neither a message came nor a line"
            self._read(pid or worker.pid, uid, 32)
        return worker.line()

    def _read(self, pid: int, uid: int, most: int) -> None:
        self.reads.append(self.channel.read(pid, uid, most))
        self.messages += self.reads[-1].messages
        self.refused += self.reads[-1].refused


@pytest.fixture
def channel() -> Iterator[Channel]:
    channel = Channel(secrets.token_hex(8), 1)
    yield channel
    channel.close()


@pytest.fixture
def ear(channel: Channel) -> Ear:
    return Ear(channel)


@pytest.fixture
def say(channel: Channel) -> Say:
    """Send a datagram from this very process, with descriptors if there are any."""
    import socket

    def send(text: bytes, fds: tuple[int, ...] = ()) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + channel.address[1:])
            socket.send_fds(sock, [text], list(fds))

    return send


@pytest.fixture
def run(channel: Channel) -> Iterator[Run]:
    """Start a worker: a list of arguments, or Python code and what it is to be started with."""
    workers = []

    def start(what: str | list[str], *, via: tuple[str, ...] = (), **options: Any) -> Worker:
        argv = [*via, sys.executable, "-S", "-c", PRELUDE + what] if isinstance(what, str) else what
        workers.append(Worker(argv, channel.address, **options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()


@pytest.fixture
def hear(channel: Channel, say: Say) -> Callable[[bytes], Read]:
    """What the channel makes of a datagram that the worker itself sends."""

    def send(text: bytes) -> Read:
        say(text)
        return channel.read(os.getpid(), os.getuid())

    return send
