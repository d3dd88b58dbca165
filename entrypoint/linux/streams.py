"""Standard output and error of the master's children: the master's, by open file descriptions of their own.

A program may make its output non-blocking, as Node.js does with every pipe, and the flag is the description's. In one
that is shared by all, the lines of all the others would be lost as soon as their reader is slow.
"""

from __future__ import annotations

import fcntl
import os
import stat

STREAMS = (1, 2)
WRITABLE = 0o022  # by any user; a user whose group is the file's is judged by the group's bits alone


class Streams:
    """What the master has as 1 and 2, for one child after the other."""

    def __init__(self) -> None:
        self._lent: dict[int, int] = {}  # bits that were added to a terminal's mode, by descriptor

    def open(self, uid: int | None) -> tuple[int, int]:
        """Descriptors for a child's 1 and 2, to be given to `close`; `uid`: its user, if it has one of its own.

        Never waits, never raises.
        """
        if uid is not None:
            for fd in STREAMS:
                self._share(fd, uid)
        return own(1), own(2)

    def close(self, fds: tuple[int, ...]) -> None:
        """Close what was opened for a child."""
        for fd in fds:
            if fd not in STREAMS:
                os.close(fd)

    def take_back(self) -> None:
        """Put the modes of terminals back, which outlive the master."""
        for fd, added in self._lent.items():
            try:
                os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) & ~added)
            except OSError:  # hung up
                pass

    def _share(self, fd: int, uid: int) -> None:
        """Let a user open /dev/stdout and its like. A file or a FIFO with a name keeps the mode that it was given."""
        terminal = os.isatty(fd)
        if terminal or _is_anonymous(fd):
            added = let_write(fd, uid)
            if terminal and added:
                self._lent[fd] = added


def own(fd: int) -> int:
    """Another open file description of a pipe or a terminal, one that blocks; else `fd` itself.

    A file is written at one position, which all have to share, a socket cannot be opened, and opening any other device
    might do something to it.
    """
    new = -1
    try:
        if not (stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd)):
            return fd
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        # O_NONBLOCK: without a reader, or a carrier, the open itself would wait.
        how = (flags & os.O_ACCMODE) | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        new = os.open(f"/proc/self/fd/{fd}", how)
        fcntl.fcntl(new, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
    except OSError:  # no /proc, another user's pipe, nobody who reads, no descriptor left
        if new >= 0:
            os.close(new)
        return fd
    return new


def let_write(fd: int, uid: int) -> int:
    """Let a user open a pipe or a terminal anew for writing; returns the bits that its mode got for it.

    Everybody is let, since the next worker may have another user, and a terminal that is given away is missed by
    whoever had it. A pipe without a name is reached only through a process that has it, so its mode guards little;
    reading stays its owner's all the same, or one worker could take the lines of another.
    """
    try:
        found = os.fstat(fd)
        added = WRITABLE & ~found.st_mode if uid != found.st_uid else 0
        if added:
            os.fchmod(fd, stat.S_IMODE(found.st_mode) | added)
    except OSError:  # not ours to change: what is open stays usable
        return 0
    return added


def _is_anonymous(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
    except OSError:  # no /proc, through which alone it could be opened
        return False
