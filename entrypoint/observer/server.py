"""HTTP/1.1 for anybody on the network: who is slow, silent or hostile costs a bounded buffer, and nobody else a thing.

h11 knows the protocol; here are the sockets, the deadlines and the limits. asyncio: no threads, a deadline for every
wait, one bounded buffer for a client that does not read. No request waits behind another client: when there are too
many connections, the one that has kept us waiting longest goes.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import h11

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Application = Callable[["Request"], Awaitable["Reply"]]

MAX_CONNECTIONS = 256
MAX_HEAD = 16 << 10  # bytes
MAX_BODY = 64 << 10  # bytes that are read and thrown away: no path wants any
PIECE = 64 << 10  # bytes of a reply on their way to a client; the rest is shared by all who get the same reply
RECEIVING = 65.0  # seconds for a request, with the wait for its first byte: a scraper returns once a minute
SENDING = 30.0  # seconds for a reply
LINGER = 1.0  # seconds for a client that is refused to stop talking and read why
BACKLOG = 256
TEXT = "text/plain; charset=utf-8"


class Request(NamedTuple):
    """A request; the last of several headers with the same name counts, except that lists are joined."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed; names in lower case


class Reply(NamedTuple):
    """An answer, without what every answer says."""

    status: int
    body: bytes
    type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


def text(status: int, line: str, *headers: tuple[str, str]) -> Reply:
    """A reply of one line or more of plain text."""
    return Reply(status, f"{line}\n".encode(errors="replace"), headers=headers)


class Server:
    """Everybody who is connected."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._connections = 0
        self._waiting: dict[asyncio.StreamWriter, None] = {}  # whom we wait for; for the first of them, longest
        self._listeners: list[asyncio.Server] = []

    async def listen(self, sock: socket.socket) -> None:
        """Accept connections from a listening socket. Raises OSError."""
        # Otherwise the kernel would buffer megabytes for each client that does not read. Connections inherit it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        self._listeners.append(await asyncio.start_server(self._client, sock=sock, backlog=BACKLOG, limit=MAX_HEAD))

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)  # so that drain() means sent, and deadlines cover all of it
        self._connections += 1
        self._waiting[writer] = None
        if self._connections > MAX_CONNECTIONS:
            slowest = next(iter(self._waiting))
            # All others are being answered, which does not take long: there is room for a probe meanwhile.
            if slowest is not writer or self._connections > 2 * MAX_CONNECTIONS:
                del self._waiting[slowest]
                slowest.transport.abort()
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            while await self._exchange(connection, reader, writer):
                connection.start_next_cycle()
        except OSError:  # it has gone, was told to go, or took too long
            pass
        finally:
            self._connections -= 1
            self._waiting.pop(writer, None)
            writer.transport.abort()

    async def _exchange(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One request and its reply; returns whether there may be another. Raises OSError."""
        method = ""
        try:
            async with asyncio.timeout(RECEIVING):
                request = await _receive(connection, reader)
            if request is None:
                return False
            method = request.method
            self._waiting.pop(writer, None)
            reply = await self._answer(request)
        except h11.RemoteProtocolError as error:
            reply = text(error.error_status_hint, f"cannot read the request: {error}", ("Connection", "close"))
        self._waiting.pop(writer, None)
        self._waiting[writer] = None
        async with asyncio.timeout(SENDING):
            await _send(connection, writer, reply, head_only=method == "HEAD")
        if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
            return True
        if connection.their_state is not h11.CLOSED:
            await _linger(reader, writer)
        return False

    async def _answer(self, request: Request) -> Reply:
        try:
            return await self._application(request)
        except Exception as error:  # noqa: BLE001 - a bug in one answer must not take the others away
            why = f"{type(error).__name__}: {error}"
            print(f"entrypoint observer: cannot answer {request.path[:64]!a}: {why}", file=sys.stderr)  # noqa: T201
            return text(500, "internal error")


async def _receive(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    """The next request; None when the client has hung up. Raises h11.RemoteProtocolError, OSError."""
    request: Request | None = None
    size = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                return request
            connection.receive_data(await reader.read(MAX_HEAD))
        elif isinstance(event, h11.Request):
            request = _request(event)
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > MAX_BODY:
                raise h11.RemoteProtocolError("its body is too long", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage):
            return request
        else:
            return None


def _request(event: h11.Request) -> Request:
    if event.http_version > b"1.1":
        raise h11.RemoteProtocolError("it speaks another HTTP", error_status_hint=505)
    headers: dict[str, str] = {}
    for raw, value in event.headers:
        name = raw.decode("ascii")
        headers[name] = ", ".join(filter(None, (headers.get(name), value.decode("latin-1"))))
    try:
        target = urlsplit(event.target.decode("ascii"))
    except ValueError:  # http://[/
        raise h11.RemoteProtocolError("its target is no URL") from None
    return Request(event.method.decode("ascii"), target.path, target.query, headers)


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, reply: Reply, *, head_only: bool) -> None:
    """Send a reply. Raises OSError."""
    headers = {
        "Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        "Content-Type": reply.type,
        "Content-Length": str(len(reply.body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        **dict(reply.headers),
    }
    reason = HTTPStatus(reply.status).phrase
    head = connection.send(h11.Response(status_code=reply.status, headers=[*headers.items()], reason=reason.encode()))
    data = head or b""
    body = b"" if head_only else reply.body
    for start in range(0, len(body), PIECE):
        writer.write(data + (connection.send(h11.Data(data=body[start : start + PIECE])) or b""))
        await writer.drain()
        data = b""
    writer.write(data)
    connection.send(h11.EndOfMessage())
    await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let the client read: a socket that is closed with data unread resets the connection, and the reply is lost.

    Raises OSError.
    """
    writer.write_eof()
    async with asyncio.timeout(LINGER):
        while await reader.read(PIECE):
            pass
