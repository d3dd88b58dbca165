"""What is left of the process groups of workers that have ended."""

# A slot is not free while the old group of its worker lives: the replacement would fight over a port or a file with it.
# Members may be reaped by parents of their own, unseen, so groups are looked at again whenever a deadline kills them or
# no child is left.
#
# TERM goes to what has become the master's, not to their children. A shell dies of TERM at once, and the program behind
# it is to finish its work with its children as if there had been no shell. So members get it whose parent has died,
# which the kernel shows by making them the master's children, now or later. One look at the master's children does for
# a batch of ends, and none is needed for a worker that was alone. KILL goes to the whole group.

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from entrypoint.linux import kernel, proc
from entrypoint.linux.signals import signal

if TYPE_CHECKING:
    from collections.abc import Callable


LOOKS = 3  # for a daemon, whose parents are ending meanwhile


class Groups:
    """Groups that outlive their leaders, each until nothing of it is left."""

    def __init__(self, is_expected: Callable[[int], bool]) -> None:
        """`is_expected` tells of a child whether the master has started it, by its pid."""
        self._is_expected = is_expected
        self._gone: dict[int, Callable[[], None]] = {}  # by number
        self._told: set[int] = set()  # members that were sent TERM, by pid; all of a group by its number, negative
        self._bereft = False  # something in them has lost its parent

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._gone)

    def __contains__(self, pgid: int) -> bool:
        return pgid in self._gone

    def linger(self, pgid: int, gone: Callable[[], None]) -> None:
        """Its leader has been reaped, and it is still there; call `gone` when it is not."""
        self._gone[pgid] = gone
        self._bereft = True

    def lost(self, pid: int, pgid: int) -> None:
        """A member, an orphan, has been reaped."""
        if pgid in self._gone:
            self._told.discard(pid)
            self._bereft = True
            self.check(pgid)

    def check(self, pgid: int) -> None:
        """Look whether there is nothing left of it."""
        if pgid in self._gone and not kernel.group_exists(pgid):
            self._told.discard(-pgid)
            self._gone.pop(pgid)()

    def check_all(self) -> None:
        """Some processes are collected by parents of their own: look whether a group has ended unseen."""
        for pgid in list(self._gone):
            self.check(pgid)

    def tell(self) -> None:
        """Send TERM to what has lost its parent since the last time."""
        if not self._bereft:
            return
        self._bereft = False
        if not self._gone:
            return
        found = set()
        for pid in self.strangers():
            pgid = kernel.group_of(pid)
            if pgid not in self._gone:
                continue
            found.add(pgid)
            if pid not in self._told:
                self._told.add(pid)
                try:
                    kernel.send_awake(pid, signal.SIGTERM)
                except PermissionError:  # it has become another user's
                    pass
        for pgid in self._gone:
            if pgid not in found and -pgid not in self._told:  # their parents have left the group, or no /proc
                self._told.add(-pgid)
                kernel.send_group(pgid, signal.SIGTERM)
                kernel.send_group(pgid, signal.SIGCONT)

    def strangers(self) -> list[int]:
        """Children of the master that it has not started."""
        return [pid for pid in proc.children(os.getpid()) if not self._is_expected(pid)]

    def has_daemon(self, born: int) -> bool:
        """Whether a stranger lives outside of every group that the master knows, and is no older than `born`.

        That is what a program leaves that makes itself a daemon. `born` is in the unit of `proc.start_time`. Asked
        when nothing is left of the program's own group, or who is about to leave it would be seen in neither place.
        """
        for _ in range(LOOKS):
            dying = False
            for pid in self.strangers():
                pgid = kernel.group_of(pid)
                if pgid not in self._gone and not self._is_expected(pgid) and proc.is_since(pid, born):
                    if not proc.is_dead(pid):
                        return True
                    dying = True  # what it has left may have come to us after the list was made
            if not dying:
                break
        return False
