"""Orders that the core gives the shell, in the imperative. `serial` names one life of one worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from entrypoint.record import Record

if TYPE_CHECKING:
    from entrypoint.config.spec import Command, Probe, Socket
    from entrypoint.core.model import Template


class Spawn(Record):
    """Start the worker's process; answer with `Spawned` or `SpawnRefused` before any other event."""

    serial: int
    pool: str
    slot: int
    generation: int
    template: Template


class Signal(Record):
    """Send a signal to the worker's main process, and to nothing else of its group.

    `wake`: let it go on afterwards if somebody has stopped it, so that it sees the signal.
    """

    serial: int
    signum: int
    wake: bool = False


class KillTree(Record):
    """SIGKILL the worker, its process group, and the descendants that left the group."""

    serial: int


class Select(Record):
    """Let the kernel choose the worker's own sockets for new connections, or no longer."""

    serial: int
    chosen: bool


class CheckQueue(Record):
    """Count the connections that wait on the worker's own sockets, see if it is busy; answer with `QueueChecked`."""

    serial: int


class CloseSockets(Record):
    """Close the master's copies of these sockets; the workers' copies go on serving the queue.

    `forget`: they are no longer configured, so nothing of them is to stay behind.
    """

    sockets: tuple[Socket, ...]
    forget: bool = False


class Inspect(Record):
    """Look at the worker from outside: for a proof that it can work (`ready`), or whether it still does (`live`)."""

    serial: int
    kind: str
    probe: Probe | None  # None: `ready`, whether it accepts connections; `live`, look no longer


class RunHook(Record):
    """Run a lifecycle command beside the worker; answer with `HookEnded`."""

    serial: int
    hook: str  # post_start | pre_stop
    command: Command


class KillHook(Record):
    """SIGKILL the worker's lifecycle command and its process group."""

    serial: int


class Reload(Record):
    """Read the configuration again; answer with `SpecChanged` or `SpecRejected`."""

    roll_all: bool
    asker: int = 0


class Answer(Record):
    """Tell whoever asked what came of it: an error, or the (pool, generation) of each rollout that began."""

    asker: int
    error: str = ""
    rollouts: tuple[tuple[str, int], ...] = ()


class RolloutEnded(Record):
    """Let everybody who waits for it know."""

    pool: str
    generation: int
    result: str  # completed | failed | aborted
    reason: str = ""


class Sweep(Record):
    """Send a signal to every remaining descendant of the master; `Childless` tells when none is left."""

    signum: int


class Report(Record):
    """Write one line to the log."""

    level: str
    event: str
    pool: str = ""
    slot: int | None = None
    serial: int = 0
    fields: dict[str, Any] = {}  # noqa: RUF012 - never changed; named tuples have no default factories


class Exit(Record):
    """Leave with this code; nothing is left to do. `fields` name the worker that decided it, if one did."""

    code: int
    reason: str
    fields: dict[str, Any] = {}  # noqa: RUF012 - never changed
    serial: int = 0  # of that worker


Action = (
    Spawn
    | Signal
    | KillTree
    | Select
    | CheckQueue
    | CloseSockets
    | Inspect
    | RunHook
    | KillHook
    | Reload
    | Answer
    | RolloutEnded
    | Sweep
    | Report
    | Exit
)
