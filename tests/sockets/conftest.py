"""The master's sockets without a master: held, changed and asked in the tests' own process."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from entrypoint.master.sockets.held import Sockets
from tests.sockets.harness import Clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def new_sockets() -> Iterator[Callable[[], Sockets]]:
    """`new_sockets()` makes holders of sockets, all of which are closed and removed in the end."""
    made: list[Sockets] = []

    def new() -> Sockets:
        made.append(Sockets())
        return made[-1]

    yield new
    for sockets in made:
        for held in list(sockets._held.values()):
            sockets.forget((held.spec,))
        sockets.unlink()


@pytest.fixture
def sockets(new_sockets: Callable[[], Sockets]) -> Sockets:
    return new_sockets()


@pytest.fixture
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            number: int = sock.getsockname()[1]
            return number

    return find


@pytest.fixture
def bind(free_port: Callable[[], int]) -> str:
    """An address that nobody listens on."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def other(free_port: Callable[[], int]) -> str:
    """Another one."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    made.close()
