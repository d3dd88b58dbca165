"""The terminal in init mode: lent to the worker's process group, taken back at the end. See tcsetpgrp(3)."""

from __future__ import annotations

import os

from entrypoint.linux.signals import signal


def find() -> int | None:
    """Standard input, if it is a terminal that is ours to lend: we are in its foreground process group."""
    try:
        if os.tcgetpgrp(0) == os.getpgrp():
            return 0
    except OSError:
        pass
    return None


def any_open() -> bool:
    """Whether a terminal is at hand, which may tell of its size by SIGWINCH."""
    return any(os.isatty(fd) for fd in (0, 1, 2))


def take_back(terminal: int) -> None:
    """Put ourselves in the foreground again; from the background that takes SIGTTOU blocked."""
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            os.tcsetpgrp(terminal, os.getpgrp())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except OSError:  # hung up
        pass
