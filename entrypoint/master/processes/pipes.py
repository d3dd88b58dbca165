"""The pipes that a worker writes into where its output is framed."""

from __future__ import annotations

import os


class Pipes:
    """The two pipes of one worker. The write ends are only passed on."""

    __slots__ = ("readers", "writers")

    def __init__(self, uid: int | None) -> None:
        """`uid`: whose they are, if not the master's: programs open /dev/stdout anew. Raises OSError."""
        out = os.pipe2(os.O_CLOEXEC)
        try:
            error = os.pipe2(os.O_CLOEXEC)
        except OSError:
            for fd in out:
                os.close(fd)
            raise
        self.readers, self.writers = (out[0], error[0]), (out[1], error[1])
        for fd in self.readers:
            os.set_blocking(fd, False)
        if uid is not None:
            for fd in self.writers:
                try:
                    os.fchown(fd, uid, -1)
                except OSError:  # what is open stays usable
                    pass

    def close(self, fds: tuple[int, ...]) -> None:
        """Close some of the ends."""
        for fd in fds:
            os.close(fd)
