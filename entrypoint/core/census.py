"""The workers of a pool, told apart by what matters to its size: kept up to date, so that nobody has to count."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from entrypoint.core.model import Worker


class Roster:
    """A set of workers, in order of birth for whoever looks. Adding and discarding cost the same however many."""

    __slots__ = ("_latest", "_sorted", "_workers")

    def __init__(self) -> None:
        self._workers: dict[int, Worker] = {}
        self._latest = 0
        self._sorted = True

    def add(self, w: Worker) -> None:
        """Put it in; one that comes out of order is sorted in when somebody looks."""
        if w.serial >= self._latest:
            self._latest = w.serial
        elif self._workers:
            self._sorted = False
        self._workers[w.serial] = w

    def discard(self, w: Worker) -> None:
        """Take it out, if it is in."""
        self._workers.pop(w.serial, None)

    def __contains__(self, w: Worker) -> bool:
        return w.serial in self._workers

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        if not self._sorted:
            self._workers = dict(sorted(self._workers.items()))
            self._sorted = True
        return iter(self._workers.values())


class Census:
    """Those of whom the same is wished: that they stay, or that they go."""

    __slots__ = ("booting", "ending", "ready", "waiting")

    def __init__(self) -> None:
        self.waiting = Roster()  # for a process
        self.booting = Roster()
        self.ready = Roster()
        self.ending = Roster()  # on their way out, and to be replaced in their places

    def __len__(self) -> int:
        return len(self.waiting) + len(self.booting) + len(self.ready) + len(self.ending)
