"""The observer at work, and its end: when the master hangs up.

A process of its own for HTTP: strangers connect, and parsing, formatting and slow clients are work and memory. It gets
answers to `ping` and `snapshot` and can order nothing. The master holds its listening socket, so killing it refuses
nobody: who has connected waits in the kernel's queue for the next one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from entrypoint.observer.app import App
from entrypoint.observer.link import Link
from entrypoint.observer.messages import SERVES
from entrypoint.observer.page import Page
from entrypoint.observer.server import Server


def run(channel: int) -> int:
    """Serve on the descriptors after the channel's; returns an exit code if it cannot, else ends with the master."""
    sockets = inherited(channel + 1)
    if not sockets:
        why = f"descriptor {channel + 1} is no listening socket"
        print(f"entrypoint observer: cannot serve: {why}", file=sys.stderr)  # noqa: T201 - it has no log
        return 1
    asyncio.run(serve(socket.socket(fileno=channel), sockets))
    return 0


def inherited(first: int) -> list[socket.socket]:
    """The listening sockets on the descriptors from `first` on, up to the first that is none."""
    found: list[socket.socket] = []
    while True:
        try:
            sock = socket.socket(fileno=first + len(found))
        except OSError:
            return found
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.detach()
            return found
        found.append(sock)


async def serve(channel: socket.socket, sockets: list[socket.socket]) -> None:
    """Serve until the channel ends, then exit."""
    _, link = await asyncio.get_running_loop().create_connection(Link, sock=channel)
    server = Server(App(link, Page()))
    for sock in sockets:
        await server.listen(sock)
    link.say(SERVES)
    await link.closed
    os._exit(0)  # at once: nobody is to be told anything more
