"""How often the monitor looks."""

from __future__ import annotations

from typing import NamedTuple


class Timing(NamedTuple):
    """Intervals in seconds."""

    look_first: float = 0.02  # from the first look whether a worker accepts to the second; each next one is longer
    look_last: float = 0.25  # but no longer than this
    refused: float = 1.0  # so long may /proc be closed to us before that is reported: a change of user takes a moment
    unsure: float = 5.0  # so long may be unclear what a worker does with its socket
    quiet: float = 0.1  # a file is read when nothing has happened to it for so long,
    unquiet: float = 1.0  # or when something has happened for so long
    recheck: float = 60.0  # a file is read after this time in any case
    recheck_blind: float = 5.0  # the same where the kernel does not tell us of changes
