"""Facts that the shell tells the core, in the past tense. `serial` names one life of one worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.record import Record

if TYPE_CHECKING:
    from entrypoint.config.spec import Process, Spec


class Outcome(Record):
    """How a process ended: an exit code, or the signal that ended it."""

    code: int | None = None
    signal: int | None = None

    @property
    def status(self) -> int:
        """The shell's convention: the code, or 128 + the signal."""
        return 128 + self.signal if self.signal is not None else self.code or 0

    @property
    def text(self) -> str:
        """For people."""
        return f"signal {self.signal}" if self.signal is not None else f"exit code {self.code}"


class Started(Record):
    """The master is able to spawn."""


class Ticked(Record):
    """The earliest deadline may have passed."""


class SignalReceived(Record):
    """The master itself got a signal; `of_terminal`: as its terminal sends by itself."""

    signum: int
    of_terminal: bool = False


class Spawned(Record):
    """A process exists for the worker; whether its program can be executed is not known yet."""

    serial: int


class Executed(Record):
    """The worker's process runs its program."""

    serial: int


class SpawnRefused(Record):
    """The kernel made no process (process limit, memory, descriptors)."""

    serial: int
    error: str


class Exited(Record):
    """A worker's main process was reaped.

    `alone` is false while other processes of its process group live; those without another parent are sent TERM.
    `error` says why its program never ran. `chance` is a random number in [0, 1) for the jitter. `cpu` is what it and
    the children that it waited for took, in seconds; `oom`: the kernel killed it for want of memory. `daemon`:
    something that it started has left its group and lives on.
    """

    serial: int
    outcome: Outcome
    alone: bool
    error: str = ""
    chance: float = 0.5
    cpu: float = 0.0
    oom: bool = False
    daemon: bool = False


class GroupGone(Record):
    """The last process of a worker's process group is gone."""

    serial: int
    chance: float = 0.5


class QueueChecked(Record):
    """So many connections wait on the worker's own socket."""

    serial: int
    waiting: int
    busy: bool = False  # it runs: there may be connections that it has accepted and not read yet


class Notified(Record):
    """The worker said something about itself; see sd_notify(3)."""

    serial: int
    ready: bool = False
    beat: bool = False
    hung: bool = False
    stopping: bool = False
    extend: float = 0.0  # seconds more that it asks for
    status: str | None = None


class Beats(Record):
    """These workers said WATCHDOG=1 and nothing else: what `Notified` is for one of them."""

    serials: tuple[int, ...]


class Proved(Record):
    """A look at the worker from outside says that it is able to work."""

    serial: int


class NotVisible(Record):
    """A look at the worker from outside is not possible."""

    serial: int
    error: str


class NotLive(Record):
    """The worker's liveness probe failed so often that it counts as hung."""

    serial: int
    error: str


class HookEnded(Record):
    """A lifecycle command of the worker ended, or could not be started; `error` is empty when it did its work."""

    serial: int
    hook: str
    error: str = ""


class Stalled(Record):
    """The master itself did not run for so many seconds."""

    seconds: float


class HelperWanted(Record):
    """A process of the master's own is needed from now on; told again, it changes nothing."""

    name: str
    process: Process
    stop_timeout: float = 0.3  # seconds; with a grace period no more than its margin has


class SpecChanged(Record):
    """A new configuration was read, and its sockets are bound."""

    spec: Spec
    roll_all: bool = False  # replace every worker, changed or not
    asker: int = 0


class SpecRejected(Record):
    """The new configuration cannot be used; nothing was changed."""

    errors: tuple[str, ...]
    asker: int = 0


class Asked(Record):
    """Somebody on the control socket wants something; answer with `Answer`."""

    asker: int
    what: str  # scale | restart | start | stop | signal | reload
    pool: str = ""  # restart: empty for all
    slot: int | None = None  # signal: None for all
    workers: int | None = None  # scale: how many; None to reset
    signal: int = 0  # signal


class LimitsRead(Record):
    """The container's limits were read: they come to so many workers of a pool."""

    pool: str
    workers: int


class Childless(Record):
    """The master has no child left, so no descendant either."""


Event = (
    Started
    | Ticked
    | SignalReceived
    | Spawned
    | Executed
    | SpawnRefused
    | Exited
    | GroupGone
    | QueueChecked
    | Notified
    | Beats
    | Proved
    | NotVisible
    | NotLive
    | HookEnded
    | Stalled
    | HelperWanted
    | SpecChanged
    | SpecRejected
    | Asked
    | LimitsRead
    | Childless
)
