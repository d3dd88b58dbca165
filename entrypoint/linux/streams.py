"""Standard output and error of the master's children: the master's, by open file descriptions of their own."""

# O_NONBLOCK belongs to the open file description. Node.js sets it on every pipe, and then the lines of all who share
# the description are lost while the reader is slow. So each child (worker, init command, hook, helper) gets
# descriptions of its own of the master's pipe, FIFO or terminal. They block, whatever the master's do.
#
# The master opens them, and the child only takes them over, so it takes no more than `dup2` after the fork. O_NONBLOCK
# keeps the open itself from waiting for a reader, and is taken off again.
#
# All else is passed on as it is: a regular file, which has one position; a socket, which cannot be opened; /dev/null
# and other devices, since an open might do something to them; and what the kernel refuses: no /proc, a pipe of another
# user, one that nobody reads. Over a socket or a pipe that is refused, programs can still spoil it for each other;
# `output: json` gives each a pipe of its own.
#
# A worker's user may open them again for writing: nginx, php-fpm and httpd open /dev/stderr by name, and the
# permissions are the file's. By chown, as engines do it, only one user could, and could read the lines of all; the next
# worker may have another. So a pipe without a name gets `go+w`: it is reached only through a process that has it. A
# terminal has a name, and gets it until the master has ended (a master that is killed cannot take it back): given away,
# it would let that user read what is typed. A file or a FIFO with a name is left alone. Where the kernel refuses, the
# program says so itself.
#
# The beginning of a line that a worker leaves behind gets the next line at its end, perhaps one of the master's. What
# was last written to a pipe cannot be known, and a line end to be sure would be an empty line nearly always. Framed,
# the beginning is a line of its own.

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
    """Another open file description of a pipe or a terminal, one that blocks; else `fd` itself."""
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
    """Let everybody open a pipe or a terminal anew for writing, unless it is the user's own; returns the bits added."""
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
