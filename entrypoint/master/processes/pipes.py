"""The pipes that a worker writes into where its output is framed."""

from __future__ import annotations

import os

from entrypoint.linux.streams import let_write


class Pipes:
    """The two pipes of one worker. The write ends are only passed on."""

    __slots__ = ("readers", "writers")

    def __init__(self, uid: int | None) -> None:
        """`uid`: the worker's user, if not the master's: programs open /dev/stdout anew. Raises OSError."""
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
                let_write(fd, uid)
