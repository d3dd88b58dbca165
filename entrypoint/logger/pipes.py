"""The pipes that workers write to.

What is read of a pipe is gone with the process that read it. So nothing is taken from a worker's pipe before it has
been written: tee(2) copies what is there, and only then it is dropped. Whoever comes after a logger that was killed
finds everything in the pipe; a few lines may be written twice, whole each time, and none is lost. Where tee is refused,
plain reads have to do.

The beginning of a line stays in the pipe until the rest is there. But a pipe that is not empty wakes no reader when a
writer has to wait for room, not even an edge-triggered one. So such a pipe sends SIGIO (O_ASYNC), and one that is full
of the beginning of a line gets more room, or is read after all.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
from collections import deque

from entrypoint.logger.lines import MAX_LINE, Framer

LAST_LINES = 10  # of a worker that has ended
ROOM = 1 << 18  # bytes of a pipe that holds a line of MAX_LINE in pieces of any usual size
SPLICE_F_NONBLOCK = 2
FIONREAD = 0x541B


class CopyError(Exception):
    """The kernel does not let us look into a pipe without reading it."""


class Copier:
    """Copies what is in a pipe, and learns of writers that wait for room in one."""

    def __init__(self) -> None:
        """Raises CopyError."""
        try:
            import ctypes

            libc = ctypes.CDLL(None, use_errno=True)
            self._tee, self._errno = libc.tee, ctypes.get_errno
            self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            grow(self._in)
            if self._tee(self._out, self._in, 1, SPLICE_F_NONBLOCK) != -1 or self._errno() != 22:  # EINVAL: itself
                raise CopyError
            # Blocked, and read from a descriptor: one for every write would interrupt us all the time.
            mask = ctypes.create_string_buffer(128)
            libc.sigemptyset(mask)
            libc.sigaddset(mask, signal.SIGIO)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
            self.signals = libc.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK)
            if self.signals < 0:
                raise CopyError
        except (ImportError, AttributeError, OSError) as error:
            raise CopyError from error

    def copy(self, fd: int, most: int) -> bytes | None:
        """What is in the pipe, up to `most` bytes; None if nothing is and nobody can write to it. Raises CopyError."""
        while True:
            count = self._tee(fd, self._in, most, SPLICE_F_NONBLOCK)
            if count > 0:
                return _read(self._out, count)
            if not count:
                return None
            error = self._errno()
            if error == 11:  # EAGAIN
                return b""
            if error != 4:  # EINTR
                raise CopyError


class Life:
    """One life of a worker, and its streams."""

    def __init__(self, serial: int) -> None:
        self.serial = serial
        self.streams: list[Stream] = []
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self.exited = False  # and it has not been told yet what its last lines were


class Stream:
    """One pipe of a worker."""

    __slots__ = ("_asynchronous", "_copier", "_kept", "fd", "framer", "hung_up", "left", "owed", "queued", "worker")

    def __init__(self, fd: int, framer: Framer, worker: Life, copier: Copier | None) -> None:
        self.fd = fd
        self.framer = framer
        self.worker = worker
        self.hung_up = False  # nobody can write to it any more
        self.queued = False  # there may be something to read
        self.left = 0  # bytes of a line that is not whole yet
        self.owed = 0  # bytes that were there when its worker ended
        self._copier = copier  # None: plain reads have to do
        self._kept = b""  # read, and not written yet
        self._asynchronous = False

    def look(self) -> tuple[bytes, bool]:
        """What there is, a line's length of it at most, and whether it is all that there will ever be."""
        if self._copier is not None:
            try:
                data = self._copier.copy(self.fd, MAX_LINE + 1 - len(self._kept))
            except CopyError:
                self._copier = None
            else:
                seen = self._kept + (data or b"")
                return seen, data is None or (self.hung_up and self.available() == len(seen))
        try:
            data = os.read(self.fd, MAX_LINE + 1 - len(self._kept))
        except BlockingIOError:
            return self._kept, False
        self._kept += data
        return self._kept, not data

    def drop(self, count: int) -> None:
        """So many bytes of it have been written."""
        kept = min(count, len(self._kept))
        self._kept = self._kept[kept:]
        _read(self.fd, count - kept)

    def take(self) -> None:
        """Read what is left of a line: it cannot stay in the pipe without being in the way of the rest."""
        self._kept += _read(self.fd, self.left - len(self._kept))

    def available(self) -> int:
        """How many bytes there are."""
        return len(self._kept) + int.from_bytes(fcntl.ioctl(self.fd, FIONREAD, b"\0\0\0\0"), "little")

    def wait_for_the_rest(self) -> bool:
        """Leave the beginning of a line in the pipe; returns whether it is there."""
        if self.left == len(self._kept):  # it has been read, and the pipe is empty
            return False
        if not self._asynchronous:
            self._asynchronous = True
            fcntl.fcntl(self.fd, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(self.fd, fcntl.F_SETFL, fcntl.fcntl(self.fd, fcntl.F_GETFL) | os.O_ASYNC)
        if self._is_full() and not grow(self.fd):
            self.take()
            return False
        return True

    def _is_full(self) -> bool:
        """Whether a writer would have to wait; only another writer can see that."""
        try:
            fd = os.open(f"/proc/self/fd/{self.fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # then it had better be empty
            return True
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        full = not poll.poll(0)
        os.close(fd)
        return full

    def close(self) -> None:
        """It has ended."""
        os.close(self.fd)


def _read(fd: int, count: int) -> bytes:
    """Read what is known to be there; a pipe in packet mode gives it in pieces."""
    data = b""
    while len(data) < count:
        data += os.read(fd, count - len(data))
    return data


def grow(fd: int) -> bool:
    """Give a pipe the room for the longest line; whether it has more than before."""
    try:
        before = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
        return before < ROOM and fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, ROOM) > before
    except OSError:  # no pipe, or its user has too much in pipes already
        return False
