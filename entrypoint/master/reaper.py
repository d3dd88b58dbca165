"""The one owner of wait(2): every child that has ended is collected here, whoever it was.

A child that somebody expects is given to them while it still is a zombie: its pid and its group's number are its own
until they reap it. Everything else is an orphan. A process group that outlives its leader is watched until it is gone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from entrypoint.master import kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.core.events import Outcome

BATCH = 200  # children collected before signals and deadlines get a look


class Reaper:
    """Who is expected to end, and what is left of who has."""

    def __init__(self, childless: Callable[[], None]) -> None:
        """`childless` is called whenever the master has no child at all."""
        self.changed = True  # some may have ended
        self.orphans = 0  # reaped so far
        self._childless = childless
        self._expected: dict[int, Callable[[Outcome], None]] = {}  # by pid
        self._groups: dict[int, Callable[[], None]] = {}  # by number

    def expect(self, pid: int, ended: Callable[[Outcome], None]) -> None:
        """Call `ended` when that child has ended; it is to reap it, with `kernel.reap` or `kernel.reap_worker`."""
        self._expected[pid] = ended

    def is_expected(self, pid: int) -> bool:
        """Whether that child has not been reaped: its pid is its own."""
        return pid in self._expected

    def linger(self, pgid: int, gone: Callable[[], None]) -> None:
        """Call `gone` when nothing is left of a group whose leader has been reaped."""
        self._groups[pgid] = gone

    def lingers(self, pgid: int) -> bool:
        """Whether that group is still waited for."""
        return pgid in self._groups

    def reap(self) -> None:
        """Collect children that have ended, up to a batch; the rest in the next turn."""
        for _ in range(BATCH):
            try:
                dead = kernel.peek()
            except ChildProcessError:
                self.changed = False
                self._check_groups()
                self._childless()
                return
            if dead is None:
                self.changed = False
                return
            ended = self._expected.pop(dead.pid, None)
            if ended is not None:
                ended(dead.outcome)
            else:
                self._reap_orphan(dead.pid)

    def _reap_orphan(self, pid: int) -> None:
        group = -1
        if self._groups:
            try:
                group = os.getpgid(pid)
            except OSError:
                group = -1
        kernel.reap(pid)
        self.orphans += 1
        self.check_group(group)

    def check_group(self, pgid: int) -> None:
        """Look whether a group has gone."""
        if pgid in self._groups and not kernel.group_exists(pgid):
            self._groups.pop(pgid)()

    def _check_groups(self) -> None:
        """Some processes are collected by parents of their own: look whether a group has ended unseen."""
        for pgid in list(self._groups):
            self.check_group(pgid)
