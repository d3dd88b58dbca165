"""One HTTP request, asked as a kubelet asks it: no proxy, no redirects, no verification of certificates."""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import h11

from entrypoint import __version__

if TYPE_CHECKING:
    from ssl import SSLContext
    from urllib.parse import SplitResult

MAX_BODY = 10 * 1024  # bytes that are waited for


async def get(url: str) -> str:
    """Why the answer to a GET is no success (200 to 399), or nothing.

    Raises OSError when there is no connection, ValueError when the URL is none.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls() if secure else None)
    try:
        return await _ask(parts, reader, writer)
    except h11.ProtocolError as error:
        return f"no proper answer: {error}"
    finally:
        writer.transport.abort()  # whatever the other side has not sent or read by now


async def _ask(parts: SplitResult, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    connection = h11.Connection(h11.CLIENT)
    headers = [
        ("Host", parts.netloc),
        ("User-Agent", f"entrypoint-probe/{__version__}"),
        ("Accept", "*/*"),
        ("Connection", "close"),
    ]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    writer.write(connection.send(h11.Request(method="GET", target=target, headers=headers)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    failure = ""
    size = 0
    while size < MAX_BODY:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(4096))
        elif isinstance(event, h11.Response):
            if not 200 <= event.status_code < 400:
                failure = f"answered {event.status_code} {event.reason.decode('latin-1')}".strip()
        elif isinstance(event, h11.Data):
            size += len(event.data)
        elif not isinstance(event, h11.InformationalResponse):  # the end
            break
    return failure


@functools.cache
def tls() -> SSLContext:
    """Whoever the other side is: it has a certificate for the service, hardly ever for 127.0.0.1."""
    import importlib
    import ssl

    protocol = sys.modules["asyncio.sslproto"]
    if vars(protocol)["ssl"] is None:  # main.py spares those who need no TLS its memory
        importlib.reload(protocol)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
