"""The control socket: one JSON line in, one or two JSON lines out. See docs/CONTROL.md.

Whoever may connect is trusted with the workers, but not with the master's time or memory: nothing here blocks, every
buffer is bounded, and a client that overstays is dropped.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import sys
import time

from entrypoint.config.control import distrust
from entrypoint.core.model import NEVER
from entrypoint.linux.stale import unlink_stale

TYPE_CHECKING = False  # `typing` would cost PID 1 memory
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Watch = Callable[[int, Callable[[], None], int], None]
    Unwatch = Callable[[int], None]
    Handle = Callable[[int, dict[str, Any]], None]

MAX_CLIENTS = 64
MAX_REQUEST = 4096  # bytes of a line, without its end
MAX_PENDING = 1 << 20  # bytes of answers that clients have not read, all together; a single answer may be longer
REQUEST_TIME = 5.0  # seconds until a request must be complete
ANSWER_TIME = 5.0  # seconds in which the client must read something of its answer
ACCEPT_BATCH = 16
ACCEPT_PAUSE = 1.0  # seconds without accepting when there is no descriptor or memory for a client
BACKLOG = 128

MAX_NAME = 63  # characters of a pool's name

READING, ASKED, WRITING, LAST = range(4)  # LAST: writing, and then it is over


class Client:
    """One connection: a request to be read, then an answer to be waited for or written."""

    __slots__ = ("asker", "deadline", "fd", "rest", "sock", "state")

    def __init__(self, asker: int, sock: _socket.socket) -> None:
        self.asker = asker
        self.sock = sock
        self.fd = sock.fileno()
        self.state = READING
        self.rest = bytearray()  # of the request while reading, else of the answer
        self.deadline = time.monotonic() + REQUEST_TIME


class Control:
    """The server, driven by the loop: it has no thread and no loop of its own."""

    def __init__(self, path: str, watch: Watch, unwatch: Unwatch, handle: Handle) -> None:
        """Take the loop's epoll as `watch(fd, handler, mask)` and `unwatch(fd)`.

        `handle(asker, request)` gets each valid request of an authorised client; `asker` is the number to `answer` to.
        """
        self.path = path
        self._watch = watch
        self._unwatch = unwatch
        self._handle = handle
        self._listener: _socket.socket | None = None
        self._listening = False  # whether the loop watches the listener
        self._resume_at = NEVER
        self._made = (0, 0)  # identity of the file that we made
        self._clients: dict[int, Client] = {}
        self._last_asker = 0
        self._pending = 0  # bytes of answers that are not written yet

    @property
    def deadline(self) -> float:
        """When `due` is to be called next (monotonic); infinity: not at all."""
        return min([self._resume_at, *(c.deadline for c in self._clients.values())])

    # -- the listener ----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Bind and listen, in a folder that is made when it is missing.

        The socket file of a master that is gone is replaced. Raises OSError: EADDRINUSE when somebody accepts on it.
        """
        _make_folder(os.path.dirname(os.path.abspath(self.path)))
        unlink_stale(self.path)
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
        try:
            # Private from the first moment on: the mode of the file decides who can connect.
            before = os.umask(0o177)
            try:
                sock.bind(self.path)
            finally:
                os.umask(before)
            made = os.lstat(self.path)
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        self._made = (made.st_dev, made.st_ino)
        self._listener = sock
        self._listen()

    def close(self) -> None:
        """Drop every client, stop listening, and remove the socket file if it is still ours."""
        for client in list(self._clients.values()):
            self._drop(client)
        sock, self._listener = self._listener, None
        self._resume_at = NEVER
        if sock is None:
            return
        if self._listening:
            self._unwatch(sock.fileno())
            self._listening = False
        _close(sock)
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == self._made:
                os.unlink(self.path)
        except OSError:  # gone already, or on a disk that has become read-only
            pass

    def _listen(self) -> None:
        """Accept if there is room for a client."""
        if self._listener is not None and not self._listening and len(self._clients) < MAX_CLIENTS:
            self._resume_at = NEVER
            self._listening = True
            self._watch(self._listener.fileno(), self._accept, select.EPOLLIN)

    def _pause(self) -> None:
        if self._listener is not None and self._listening:
            self._listening = False
            self._unwatch(self._listener.fileno())

    def _accept(self) -> None:
        for _ in range(ACCEPT_BATCH):
            if self._listener is None or not self._listening:
                return
            try:
                fd, _address = self._listener._accept()  # type: ignore[attr-defined] # noqa: SLF001 - what `socket` calls
            except BlockingIOError:
                return
            except (ConnectionError, InterruptedError):
                continue
            except OSError:  # no descriptor, no memory: it would stay readable, so look away for a moment
                self._pause()
                self._resume_at = time.monotonic() + ACCEPT_PAUSE
                return
            try:
                self._welcome(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd))
            except OSError:  # it has gone already
                continue
            if len(self._clients) >= MAX_CLIENTS:
                self._pause()

    def _welcome(self, sock: _socket.socket) -> None:
        """Take a new connection, or refuse it. Raises OSError."""
        try:
            sock.setblocking(False)
            who = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
            uid = int.from_bytes(who[4:8], sys.byteorder)
            if uid not in (0, os.geteuid()):
                sock.send(_encode(refusal(f"cannot answer uid {uid}: not your master")), _socket.MSG_NOSIGNAL)
                _close(sock)
                return
            self._last_asker += 1
            client = Client(self._last_asker, sock)
            self._watch(client.fd, lambda: self._step(client), select.EPOLLIN)
        except OSError:
            _close(sock)
            raise
        self._clients[client.asker] = client

    # -- clients ---------------------------------------------------------------------------------------------

    def answer(self, asker: int, line: dict[str, Any], *, last: bool = True) -> None:
        """Send a line; with `last`, hang up after it. A client that has gone meanwhile is ignored."""
        client = self._clients.get(asker)
        if client is None or client.state in (READING, LAST):
            return
        data = _encode(line)
        if self._pending and self._pending + len(data) > MAX_PENDING:  # others are not reading theirs
            self._drop(client)
            return
        client.rest += data
        self._pending += len(data)
        was_writing = client.state == WRITING
        client.state = LAST if last else WRITING
        client.deadline = time.monotonic() + ANSWER_TIME
        if not was_writing:
            self._write(client, watched=False)

    def due(self, now: float) -> float:
        """Drop the clients that have overstayed; returns the next deadline."""
        for client in [c for c in self._clients.values() if c.deadline <= now]:
            if client.state == READING:
                self._refuse(client, f"cannot read the request: not complete within {REQUEST_TIME:g} s")
            else:
                self._drop(client)
        if self._resume_at <= now:
            self._resume_at = NEVER
            self._listen()
        return self.deadline

    def _step(self, client: Client) -> None:
        """Something happened to a connection: it can be read or written, or the peer has hung up."""
        if self._clients.get(client.asker) is not client:
            return
        if client.state == READING:
            self._read(client)
        elif client.state == ASKED:  # nothing is watched for but a hang-up
            self._drop(client)
        else:
            self._write(client, watched=True)

    def _read(self, client: Client) -> None:
        room = MAX_REQUEST + 1 - len(client.rest)
        try:
            data = client.sock.recv(min(room, MAX_REQUEST))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(client)
            return
        client.rest += data
        line, end, more = client.rest.partition(b"\n")
        if data and not end:
            if len(client.rest) > MAX_REQUEST:
                self._refuse(client, f"cannot read the request: longer than {MAX_REQUEST} bytes")
            return
        if not client.rest.strip():  # looked in and left
            self._drop(client)
        elif more.strip():
            self._refuse(client, "cannot read the request: more than one line")
        else:
            self._ask(client, bytes(line))

    def _ask(self, client: Client, line: bytes) -> None:
        try:
            request = parse(line)
        except ValueError as error:
            self._refuse(client, str(error))
            return
        client.rest = bytearray()
        client.state = ASKED
        client.deadline = NEVER
        self._change(client, 0)  # the kernel tells of a hang-up in any case
        try:
            self._handle(client.asker, request)
        except Exception:
            self.answer(client.asker, refusal(f"cannot {request['ask']}: internal error"))
            raise  # the loop reports it as the bug that it is

    def _refuse(self, client: Client, reason: str) -> None:
        client.rest = bytearray()
        client.state = ASKED
        self._change(client, 0)
        self.answer(client.asker, refusal(reason))

    def _write(self, client: Client, *, watched: bool) -> None:
        try:
            sent = client.sock.send(client.rest, _socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._drop(client)
            return
        if sent:
            del client.rest[:sent]
            self._pending -= sent
            client.deadline = time.monotonic() + ANSWER_TIME
        if client.rest:
            if not watched:
                self._change(client, select.EPOLLOUT)
        elif client.state == LAST:
            self._drop(client)
        else:
            client.state = ASKED
            client.deadline = NEVER
            if watched:
                self._change(client, 0)

    def _change(self, client: Client, mask: int) -> None:
        self._unwatch(client.fd)
        self._watch(client.fd, lambda: self._step(client), mask)

    def _drop(self, client: Client) -> None:
        if self._clients.pop(client.asker, None) is None:
            return
        if client.state in (WRITING, LAST):
            self._pending -= len(client.rest)
        self._unwatch(client.fd)
        _close(client.sock)
        if self._resume_at == NEVER:
            self._listen()


def listen(paths: Sequence[str], watch: Watch, unwatch: Unwatch, handle: Handle) -> Control:
    """A server at the first of the paths that works. Raises OSError with the reason of each when none does."""
    reasons = []
    for path in paths:
        control = Control(path, watch, unwatch, handle)
        try:
            control.open()
        except OSError as error:
            reason = error.strerror.lower() if error.strerror else str(error)  # a path that is too long has none
            reasons.append(f"{path}: {reason}")
        else:
            return control
    raise OSError(errno.EADDRNOTAVAIL, f"cannot open the control socket: {'; '.join(reasons)}")


def refusal(reason: str) -> dict[str, Any]:
    """The answer to a request that is not carried out."""
    return {"ok": False, "error": reason}


def parse(line: bytes) -> dict[str, Any]:
    """A request with exactly the keys and types that it must have. Raises ValueError with a reason."""
    import json  # with `re`: not before somebody asks

    from entrypoint.commands import REQUESTS

    try:
        request = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise ValueError("cannot read the request: not a line of JSON") from None
    ask = request.get("ask") if isinstance(request, dict) else None
    if not isinstance(ask, str) or ask not in REQUESTS:
        raise ValueError("cannot read the request: it must be an object, with `ask` one of " + ", ".join(REQUESTS))
    wanted = REQUESTS[ask]
    for key in request:
        if key != "ask" and key not in wanted:
            raise ValueError(f"cannot {ask}: unknown key {key[:MAX_NAME]!r}")
    for key, kinds in wanted.items():
        if key not in request:
            raise ValueError(f"cannot {ask}: {key} is missing")
        if not any(_fits(request[key], kind) for kind in kinds):
            raise ValueError(f"cannot {ask}: {key} is not valid")
    return dict(request)


def _fits(value: object, kind: object) -> bool:
    if isinstance(kind, range):
        return type(value) is int and value in kind  # True is no number here
    if kind is str:
        return isinstance(value, str) and 0 < len(value) <= MAX_NAME
    return value is None if kind is None else type(value) is kind


def _encode(line: dict[str, Any]) -> bytes:
    import json

    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _close(sock: _socket.socket) -> None:
    """End the connection itself, not only our descriptor: a child under way to its exec has a copy."""
    try:
        sock.shutdown(_socket.SHUT_RDWR)
    except OSError:  # the peer was first
        pass
    try:
        sock.close()
    except OSError:
        pass


def _make_folder(folder: str) -> None:
    """Make the socket's folder if it is missing, and do not trust a foreign one. Raises OSError."""
    try:
        os.mkdir(folder, 0o755 if folder == "/run/entrypoint" else 0o700)
    except FileExistsError:
        pass
    if reason := distrust(folder, os.geteuid()):
        raise PermissionError(errno.EPERM, reason)
