"""Facts that the shell tells the core, in the past tense. `serial` names one life of one worker."""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    """How a process ended: an exit code, or the signal that ended it."""

    code: int | None = None
    signal: int | None = None

    @property
    def status(self) -> int:
        """The shell's convention: the code, or 128 + the signal."""
        return 128 + self.signal if self.signal is not None else self.code or 0


class Started(NamedTuple):
    """The master is able to spawn."""


class Ticked(NamedTuple):
    """The earliest deadline may have passed."""


class SignalReceived(NamedTuple):
    """The master itself got a signal."""

    signum: int


class Spawned(NamedTuple):
    """A process exists for the worker; whether its program can be executed is not known yet."""

    serial: int


class Executed(NamedTuple):
    """The worker's process runs its program."""

    serial: int


class SpawnRefused(NamedTuple):
    """The kernel made no process (process limit, memory, descriptors)."""

    serial: int
    error: str


class Exited(NamedTuple):
    """A worker's main process was reaped.

    `alone` is false while other processes of its process group live; they have been sent TERM. `error` says why
    its program never ran. `chance` is a random number in [0, 1) for the jitter.
    """

    serial: int
    outcome: Outcome
    alone: bool
    error: str = ""
    chance: float = 0.5


class GroupGone(NamedTuple):
    """The last process of a worker's process group is gone."""

    serial: int
    chance: float = 0.5


class QueueChecked(NamedTuple):
    """So many connections wait on the worker's own socket."""

    serial: int
    waiting: int


class Resized(NamedTuple):
    """The limits of the container ask for another size of a pool."""

    pool: str
    workers: int


class Childless(NamedTuple):
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
    | Resized
    | Childless
)
