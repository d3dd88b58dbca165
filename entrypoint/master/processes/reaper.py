"""The one owner of wait(2): every child that has ended is collected here, whoever it was."""

# A child that somebody expects is given to them while it still is a zombie, as `waitid(WNOWAIT)` shows it: it owns its
# pid until it is reaped, so who it was is known before the number may be somebody else's. The number of its group is
# nobody else's as long as a member is there. A child that nobody expects is an orphan.
#
# They are collected a BATCH at a time, so that a storm of orphans does not delay a TERM.

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core.events import Outcome
from entrypoint.linux import kernel
from entrypoint.master.processes.groups import Groups

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 200  # children collected before signals and deadlines get a look


class Reaper:
    """Who is expected to end, and what is left of who has."""

    def __init__(self, childless: Callable[[], None]) -> None:
        """`childless` is called whenever the master has no child at all."""
        self.changed = True  # some may have ended
        self.orphans = 0  # reaped so far
        self.groups = Groups(self.is_expected)
        self._childless = childless
        self._expected: dict[int, Callable[[Outcome], None]] = {}  # by pid

    def expect(self, pid: int, ended: Callable[[Outcome], None]) -> None:
        """Call `ended` when that child has ended; it is to reap it, with `kernel.reap` or `kernel.reap_worker`."""
        self._expected[pid] = ended

    def is_expected(self, pid: int) -> bool:
        """Whether that child has been started by us and not been reaped: its pid is its own."""
        return pid in self._expected

    def reap(self) -> None:
        """Collect children that have ended, up to a batch; the rest in the next turn."""
        self._reap_batch()
        self.groups.tell()

    def _reap_batch(self) -> None:
        for _ in range(BATCH):
            try:
                dead = kernel.peek()
            except ChildProcessError:
                self.changed = False
                self.groups.check_all()
                self._childless()
                return
            if dead is None:
                self.changed = False
                return
            ended = self._expected.pop(dead.pid, None)  # first: once it is reaped, a new child may have its number
            if ended is not None:
                ended(Outcome(dead.code, dead.signal))
            else:
                self._reap_orphan(dead.pid)

    def _reap_orphan(self, pid: int) -> None:
        pgid = kernel.group_of(pid) if self.groups else 0
        kernel.reap(pid)
        self.orphans += 1
        self.groups.lost(pid, pgid)
