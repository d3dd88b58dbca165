"""The socket itself, and the descriptors that people pass through it."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import secrets
import select
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from entrypoint.master.notify.channel import Channel, Message, Read

if TYPE_CHECKING:
    from tests.notify.conftest import Run, Say

ME = os.getpid(), os.getuid()
READY = Read([Message(ready=True)], 0, False)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def take_all(fd: int, taken: list[int]) -> None:
    """Duplicate a descriptor until there is no number left for another."""
    while True:
        try:
            taken.append(os.dup(fd))
        except OSError:
            return


def fill(channel: Channel) -> int:
    """Send until the queue takes no more; returns how many it took."""
    sent = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            while True:
                sock.sendto(b"WATCHDOG=1", "\0" + channel.address[1:])
                sent += 1
        except BlockingIOError:
            return sent


def test_each_life_has_an_abstract_address_of_its_own() -> None:
    token = secrets.token_hex(8)
    first, second = Channel(token, 1), Channel(token, 2)
    assert first.address == f"@entrypoint/{token}/1"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"READY=1", "\0" + second.address[1:])
    assert first.read(*ME) == Read([], 0, False)
    assert second.read(*ME) == READY
    first.close()
    second.close()


def test_an_address_that_is_taken_is_an_error_and_leaks_nothing(channel: Channel) -> None:
    _, token, serial = channel.address.split("/")
    before = descriptors()
    with pytest.raises(OSError, match="in use") as caught:
        Channel(token, int(serial))
    assert caught.value.errno == errno.EADDRINUSE
    assert descriptors() == before


def test_the_socket_never_blocks_asks_for_credentials_and_is_not_inherited(channel: Channel) -> None:
    assert not os.get_inheritable(channel.fd)
    assert fcntl.fcntl(channel.fd, fcntl.F_GETFL) & os.O_NONBLOCK
    with socket.socket(fileno=os.dup(channel.fd)) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) == 1


def test_a_closed_channel_refuses_messages_and_reads_nothing(channel: Channel, say: Say) -> None:
    channel.close()
    with pytest.raises(ConnectionRefusedError):
        say(b"READY=1")
    assert channel.read(*ME) == Read([], 0, False)
    channel.close()


def test_a_barrier_is_passed_once_everything_before_it_was_read(channel: Channel, say: Say) -> None:
    waiting, barrier = os.pipe()
    say(b"READY=1")
    say(b"BARRIER=1", (barrier,))
    os.close(barrier)
    assert channel.read(*ME, 1) == Read([Message(ready=True)], 0, True)
    assert select.select([waiting], [], [], 0)[0] == []  # the message is under way, and holds it open
    assert channel.read(*ME, 1) == Read([], 0, True)
    assert select.select([waiting], [], [], 0)[0] == [waiting]
    assert os.read(waiting, 1) == b""
    os.close(waiting)


@pytest.mark.parametrize("number", [1, 3, 253])
def test_descriptors_that_are_passed_are_closed(channel: Channel, say: Say, number: int) -> None:
    before = descriptors()
    waiting, given = os.pipe()
    say(b"FDSTORE=1\nREADY=1", (given,) * number)
    os.close(given)
    assert channel.read(*ME) == READY
    assert os.read(waiting, 1) == b""
    os.close(waiting)
    assert descriptors() == before


def test_descriptors_of_strangers_are_closed(channel: Channel, say: Say, run: Run) -> None:
    worker = run("stay()")
    worker.line()
    waiting, given = os.pipe()
    say(b"FDSTORE=1", (given,))
    os.close(given)
    assert channel.read(worker.pid, os.getuid()) == Read([], 1, False)
    assert os.read(waiting, 1) == b""
    os.close(waiting)


def test_messages_are_read_when_the_master_has_no_descriptor_left(channel: Channel, say: Say, run: Run) -> None:
    worker = run("say(b'READY=1')\nif os.fork(): os.wait()\nelse: say(b'STOPPING=1'); stay()")
    worker.line()
    waiting, given = os.pipe()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(fd) for fd in descriptors()) + 1, hard))
        take_all(given, taken)
        os.close(taken.pop())  # for the socket that says
        say(b"WATCHDOG=1", (given, given))
        take_all(given, taken)
        heard = channel.read(worker.pid, os.getuid() + 1, 2), channel.read(*ME)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in (*taken, given):
            os.close(fd)
    assert heard == (Read([Message(ready=True), Message(stopping=True)], 0, True), Read([Message(beat=True)], 0, False))
    assert os.read(waiting, 1) == b""
    os.close(waiting)


def test_it_costs_pid_1_neither_socket_nor_ctypes() -> None:
    modules = "{'socket', 'ctypes', 'struct', 'array'}"
    code = f"import sys, entrypoint.master.notify.channel; print(sorted({modules} & {{*sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_no_traffic_of_one_worker_takes_room_from_another() -> None:
    token = secrets.token_hex(8)
    flooded, calm = Channel(token, 1), Channel(token, 2)
    assert fill(flooded) > 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.sendto(b"READY=1", "\0" + calm.address[1:])
    assert calm.read(*ME) == READY
    flooded.close()
    calm.close()
