"""Files of unix sockets that were left behind."""

from __future__ import annotations

import _socket
import errno
import os
import stat


def unlink_stale(path: str) -> None:
    """Remove a socket file that nobody accepts on. Raises OSError (EADDRINUSE when somebody does)."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "the path exists and is no socket")
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
        return
    except BlockingIOError:  # its queue is full: somebody holds it
        pass
    finally:
        probe.close()
    raise OSError(errno.EADDRINUSE, "somebody accepts on it")
