"""Orders that the core gives the shell, in the imperative. `serial` names one life of one worker."""

from __future__ import annotations

from typing import Any, NamedTuple


class Spawn(NamedTuple):
    """Start the worker's process; answer with `Spawned` or `SpawnRefused` before any other event."""

    serial: int
    pool: str
    slot: int
    generation: int


class Signal(NamedTuple):
    """Send a signal to the worker's main process, and to nothing else of its group."""

    serial: int
    signum: int


class KillTree(NamedTuple):
    """SIGKILL the worker, its process group, and the descendants that left the group."""

    serial: int


class Select(NamedTuple):
    """Let the kernel choose the worker's own sockets for new connections, or no longer."""

    serial: int
    chosen: bool


class CheckQueue(NamedTuple):
    """Count the connections that wait on the worker's own sockets; answer with `QueueChecked`."""

    serial: int


class CloseSockets(NamedTuple):
    """Close the master's copies of these sockets; the workers' copies go on serving the queue."""

    sockets: tuple[str, ...]


class Sweep(NamedTuple):
    """Send a signal to every remaining descendant of the master; `Childless` tells when none is left."""

    signum: int


class Report(NamedTuple):
    """Write one line to the log."""

    level: str
    event: str
    pool: str = ""
    slot: int | None = None
    serial: int = 0
    fields: dict[str, Any] = {}  # noqa: RUF012 - never changed; named tuples have no default factories


class Exit(NamedTuple):
    """Leave with this code; nothing is left to do. `fields` name the worker that decided it, if one did."""

    code: int
    reason: str
    fields: dict[str, Any] = {}  # noqa: RUF012 - never changed


Action = Spawn | Signal | KillTree | Select | CheckQueue | CloseSockets | Sweep | Report | Exit
