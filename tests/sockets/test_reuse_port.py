"""Which of the sockets of one address the kernel chooses for a connection."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from entrypoint.master.sockets.held import SocketError
from tests.sockets.harness import spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.config.spec import Socket
    from entrypoint.master.sockets.held import Sockets
    from tests.sockets.harness import Clients


HAMMER = """
import socket, sys
while True:
    socket.create_connection((sys.argv[1], int(sys.argv[2]))).close()
"""


@pytest.fixture
def own(sockets: Sockets, bind: str) -> Socket:
    """A `reuse_port` socket of three slots, all of which are chosen."""
    made = spec(bind, reuse_port=True)
    sockets.prepare((made,))
    for slot in range(3):
        sockets.of_worker((made,), slot)
        sockets.select((made,), slot, chosen=True)
    assert sockets.apply() == []
    return made


def waiting(sockets: Sockets, own: Socket, slots: range) -> list[int]:
    return [sockets.waiting((own,), slot) for slot in slots]


def test_a_fresh_slot_gets_no_connection_before_it_is_chosen(sockets: Sockets, own: Socket, clients: Clients) -> None:
    sockets.of_worker((own,), 3)
    clients.connect(own, 200)
    counts = waiting(sockets, own, range(4))
    assert counts[3] == 0
    assert sum(counts) == 200
    assert min(counts[:3]) > 0
    sockets.select((own,), 3, chosen=True)
    sockets.apply()
    clients.connect(own, 200)
    assert sockets.waiting((own,), 3) > 0


def test_nor_while_it_is_made(sockets: Sockets, own: Socket) -> None:
    """Connections that come all the time find no moment at which a fresh socket listens and may be chosen."""

    with subprocess.Popen([sys.executable, "-I", "-c", HAMMER, own.host, str(own.port)]) as client:

        def wait_for_connections() -> None:
            before = sum(waiting(sockets, own, range(43)))
            while sum(waiting(sockets, own, range(43))) < before + 5:
                assert client.poll() is None

        try:
            for slot in range(3, 43):
                wait_for_connections()
                sockets.of_worker((own,), slot)
                wait_for_connections()
                assert sockets.waiting((own,), slot) == 0
                sockets.select((own,), slot, chosen=True)
                sockets.apply()  # all are chosen: for the next one, the kernel has no selector
        finally:
            client.kill()


def test_a_choice_that_was_not_told_yet_does_not_open_a_fresh_one(
    sockets: Sockets, bind: str, clients: Clients
) -> None:
    own = spec(bind, reuse_port=True)
    sockets.prepare((own,))
    sockets.of_worker((own,), 0)
    sockets.select((own,), 0, chosen=True)
    sockets.of_worker((own,), 1)
    clients.connect(own, 50)
    assert waiting(sockets, own, range(2)) == [50, 0]


def test_with_none_to_choose_the_last_ones_keep_the_queue(sockets: Sockets, own: Socket, clients: Clients) -> None:
    """Slots out of use may never see a worker again: what the kernel gave them would wait for ever."""
    for slot in (0, 1, 2):
        sockets.select((own,), slot, chosen=False)
        sockets.apply()
    clients.connect(own, 50)
    assert waiting(sockets, own, range(3)) == [0, 0, 50]


def test_a_group_that_another_master_has_is_not_joined(
    sockets: Sockets, own: Socket, new_sockets: Callable[[], Sockets]
) -> None:
    with pytest.raises(SocketError, match=rf"address already in use; pid {os.getpid()} \("):
        new_sockets().prepare((own,))


def test_an_address_comes_back_when_its_last_worker_is_gone(sockets: Sockets, own: Socket, clients: Clients) -> None:
    """While workers hold sockets of a former life, new ones would be mistaken for them in the kernel's order."""
    copies = [os.dup(sockets.of_worker((own,), slot)[0][1]) for slot in range(3)]
    sockets.forget((own,))
    with pytest.raises(SocketError, match="address already in use"):
        sockets.prepare((own,))
    for fd in copies:
        os.close(fd)
    sockets.prepare((own,))
    clients.connect(own)
    assert sockets.describe()["http"]["queued"] == 1
