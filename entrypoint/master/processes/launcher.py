"""What every process gets that the master starts, whatever it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.linux.streams import Streams
from entrypoint.master.processes.spawn import Spawner

if TYPE_CHECKING:
    from entrypoint.master.processes.spawn import Child, Surroundings, Task


class Launcher:
    """The surroundings, and standard output and error for one after the other."""

    def __init__(self, around: Surroundings) -> None:
        self._spawner = Spawner(around)
        self._streams = Streams()

    def start(self, task: Task) -> Child:
        """Start a process with an output of its own, of which the master keeps no copy. Raises OSError, ValueError."""
        if task.output is None and not task.foreground:
            who = task.process.credentials
            task = task._replace(output=self._streams.open(who.uid if who is not None else None))
        try:
            return self._spawner.spawn(task)
        finally:
            self._streams.close(task.output or ())

    def outcome(self, child: Child, told: bytes) -> str:
        """What it means that `status` of a child read like this until its end: empty, its program was executed."""
        return self._spawner.outcome(child, told)

    def close(self) -> None:
        """Put back what was changed for them and outlives the master."""
        self._streams.take_back()
