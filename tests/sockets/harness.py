"""What the tests of sockets have in common."""

from __future__ import annotations

import socket

from entrypoint.config.addresses import parse_bind
from entrypoint.config.spec import Socket


def spec(bind: str, name: str = "http", **options: object) -> Socket:
    """A socket as a configuration has it."""
    found = parse_bind(bind)
    return Socket(name, bind=bind, **dict(zip(found._fields, found, strict=True)))._replace(**options)


class Clients:
    """Connections that are kept open."""

    def __init__(self) -> None:
        self.open: list[socket.socket] = []

    def connect(self, to: Socket, times: int = 1) -> None:
        for _ in range(times):
            sock = socket.socket(socket.AF_UNIX if to.kind == "unix" else socket.AF_INET)
            self.open.append(sock)
            sock.settimeout(5)
            sock.connect(to.path if to.kind == "unix" else (to.host, to.port))

    def close(self) -> None:
        for sock in self.open:
            sock.close()
