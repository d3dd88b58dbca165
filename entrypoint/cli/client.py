"""The client's side of the control socket. `_socket` and not `socket`: a probe runs every few seconds."""

from __future__ import annotations

import _socket
import errno
import json
import os
import sys
import time

from entrypoint.cli.common import EXIT_FAILED, complain
from entrypoint.config.control import CONTROL_NAME, configured_control, distrust, find_control, named_control
from entrypoint.config.location import DEFAULT_CONFIG

TYPE_CHECKING = False  # `typing` would cost a probe 3 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

ANSWER_TIME = 5.0  # seconds
CONNECT_PAUSE = 0.02  # seconds between two attempts while the master's queue is full
MAX_ANSWER = 64 << 20  # bytes: more than 10,000 workers need


class ControlError(Exception):
    """What was asked for was not done; the message says why."""


class UnreachableError(ControlError):
    """There is no answer from a master."""


class NoSocketError(UnreachableError):
    """There is no control socket at all."""


def ask(option: str | None, request: dict[str, Any], timeout: float | None = ANSWER_TIME) -> dict[str, Any]:
    """The answer to a request with one. Raises ControlError."""
    with Connection(option, timeout) as connection:
        return connection.ask(request)


class Connection:
    """One request and its answers."""

    def __init__(self, option: str | None, timeout: float | None = ANSWER_TIME) -> None:
        """Connect to the socket that was named, by `--socket` say, else to the first that accepts.

        `timeout` is for all that follows. Raises ControlError.
        """
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._sock = _find(option, self._deadline)
        self._read = bytearray()
        who = self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
        self.pid = int.from_bytes(who[:4], sys.byteorder)  # of the master, as seen from here; 0: not visible from here
        uid = int.from_bytes(who[4:8], sys.byteorder)
        if os.geteuid() not in (0, uid) and uid != 0:
            self.close()
            raise ControlError(f"cannot trust the control socket: it is of uid {uid}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send the request; returns the first answer. Raises ControlError, also when the master says no."""
        data = json.dumps(request).encode() + b"\n"
        self._limit()
        try:
            self._sock.sendall(data, _socket.MSG_NOSIGNAL)
        except TimeoutError:
            raise self._too_late() from None
        except OSError:  # refused before it was read; the reason can be read all the same
            pass
        answer = self.next()
        if answer.get("ok") is not True and "error" in answer:
            raise ControlError(str(answer["error"]))
        return answer

    def next(self) -> dict[str, Any]:
        """The next line. Raises UnreachableError when none comes."""
        while (end := self._read.find(b"\n")) < 0:
            self._limit()
            try:
                data = self._sock.recv(1 << 16)
            except TimeoutError:
                raise self._too_late() from None
            except OSError:
                data = b""
            if not data:
                raise UnreachableError("cannot reach the master: it hung up")
            self._read += data
            if len(self._read) > MAX_ANSWER:
                raise ControlError("cannot read the answer: too long")
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise ControlError("cannot read the answer: not a JSON object")
        return answer

    def _limit(self) -> None:
        left = None if self._deadline is None else self._deadline - time.monotonic()
        if left is not None and left <= 0:
            raise self._too_late()
        self._sock.settimeout(left)

    def _too_late(self) -> UnreachableError:
        return UnreachableError(f"cannot reach the master: no answer within {self._timeout:g} s")


def guarded(command: Callable[[], int]) -> int:
    """Run a command; an error of control is said, and the exit code is 1."""
    try:
        return command()
    except ControlError as error:
        complain(str(error))
        return EXIT_FAILED


def _find(option: str | None, deadline: float | None) -> _socket.socket:
    """Connect where the master listens. Raises UnreachableError.

    What was named is the place, and no other: there may be another master in those that nobody has to name.
    """
    if named := named_control(option, os.environ):
        return _connect([named], deadline)
    try:
        return _connect(find_control("", os.environ), deadline)
    except NoSocketError as nowhere:
        try:
            return _connect(_elsewhere(), deadline)
        except UnreachableError:
            raise nowhere from None


def _elsewhere() -> list[str]:
    """Less usual places: where the usual configuration says, and where process 1 of another user would listen."""
    found = [configured_control(DEFAULT_CONFIG, os.environ)]
    if os.geteuid() == 0:
        try:
            found.append(f"/dev/shm/entrypoint-{os.stat('/proc/1').st_uid}/{CONTROL_NAME}")  # noqa: S108 - see find_control
        except OSError:
            pass
    return [place for place in found if place and os.path.lexists(place)]


def _connect(paths: list[str], deadline: float | None) -> _socket.socket:
    """Connect to the first that accepts. Raises UnreachableError."""
    reasons = []
    for path in paths:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            _connect_one(sock, path, deadline)
        except OSError as error:
            sock.close()
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                reason = os.strerror(error.errno).lower() if error.errno else str(error)
                reasons.append(f"{path}: {reason}")
        else:
            return sock
    if reasons:
        raise UnreachableError(f"cannot reach the master: {'; '.join(reasons)}")
    if len(paths) == 1:  # it was asked for, and root may ask anybody's master
        reason = _refused(paths[0], os.geteuid() or None) or "no such file or directory"
        raise NoSocketError(f"cannot reach the master: {paths[0]}: {reason}")
    folders = ", ".join(os.path.dirname(path) for path in paths)
    refused = [f"; {os.path.dirname(path)}: {why}" for path in paths if (why := _refused(path, os.geteuid()))]
    raise NoSocketError(f"cannot reach the master: no control socket in {folders}{''.join(refused)}")


def _refused(path: str, owner: int | None) -> str:
    """Why a master would not listen there; empty when it would."""
    try:
        return distrust(os.path.dirname(os.path.abspath(path)), owner)
    except OSError:
        return ""


def _connect_one(sock: _socket.socket, path: str, deadline: float | None) -> None:
    """Connect, waiting for room in the queue until the deadline. Raises OSError."""
    sock.settimeout(0)  # a blocking connect could not be limited
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
            time.sleep(CONNECT_PAUSE)
        else:
            return
