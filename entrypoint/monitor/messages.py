"""What the master tells the monitor. Imported by both, so it imports next to nothing.

Each message is its length, 4 bytes in network order, and what `pack` makes of it. Back come lines of JSON, which cannot
be more than wrong: the monitor speaks with strangers, and the master has to be safe from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.record import Record, pack

if TYPE_CHECKING:
    from entrypoint.config.environment import Identity
    from entrypoint.config.spec import Probe, Process


class Follow(Record):
    """Follow the configuration file."""

    path: str
    sha256: str  # of the content that the master runs by


class Loaded(Record):
    """The master has read this content, and accepted or rejected it: it need not hear of it again."""

    sha256: str


class Watch(Record):
    """Look at a worker; one that is watched already is watched anew."""

    serial: int
    pid: int
    kind: str  # ready: until the first success | live: until failure_threshold failures in a row
    probe: Probe | None  # None: whether it accepts connections
    inodes: tuple[int, ...]  # of the listening sockets that it inherited; empty: any socket of its own counts
    after: float  # seconds from now until the first look; a probe's initial_delay still counts if it is longer
    process: Process
    identity: Identity


class Forget(Record):
    """Look no longer; what is not watched is no error."""

    serial: int
    kind: str


Message = Follow | Loaded | Watch | Forget


def encode(message: Message) -> bytes:
    """A message as it is sent."""
    data = pack(message)
    return len(data).to_bytes(4, "big") + data
