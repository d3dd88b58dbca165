"""The master's reactor: descriptors that are waited for, timers, and the sleep between them. See epoll(7).

It knows nobody of those whom it calls. A part of the master watches its own descriptors and arms its own timers, so
that no deadline stands in two places; there are a handful of timers, whatever the number of workers.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Clock(Protocol):
        """What has a deadline (monotonic; `NEVER`: none), and is to be called when it is over."""

        @property
        def deadline(self) -> float:
            """When `due` is to be called."""

        def due(self, now: float, /) -> object:
            """Do it."""


NEVER = float("inf")
MAX_SLEEP = 1e6  # seconds; epoll takes no longer timeout
LEAST_EVENTS = 64


class Timer:
    """One thing that happens once its time has come; arming it again overwrites that time."""

    __slots__ = ("_call", "deadline")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.deadline = NEVER

    def arm(self, when: float) -> None:
        """Call at `when` (monotonic); `NEVER`: not at all."""
        self.deadline = when

    def due(self, _now: float) -> None:
        """Call, once."""
        self.deadline = NEVER
        self._call()


class Reactor:
    """Calls back; nothing of it blocks but `poll`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], Any]] = {}
        self._clocks: list[Clock] = []

    # -- deadlines -------------------------------------------------------------------------------------------

    def timer(self, call: Callable[[], Any]) -> Timer:
        """A timer that is not armed yet."""
        timer = Timer(call)
        self._clocks.append(timer)
        return timer

    def attend(self, clock: Clock) -> None:
        """Call `due` of something that knows its own deadline."""
        self._clocks.append(clock)

    @property
    def deadline(self) -> float:
        """The first of all."""
        return min([clock.deadline for clock in self._clocks], default=NEVER)

    def run_due(self, now: float) -> None:
        """Call those whose time has come."""
        for clock in self._clocks:
            if clock.deadline <= now:
                clock.due(now)

    # -- descriptors -----------------------------------------------------------------------------------------

    def watch(self, fd: int, handler: Callable[[], Any], mask: int = select.EPOLLIN) -> None:
        """Call `handler` whenever something happens on the descriptor. Raises OSError; then it is not watched."""
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def rewatch(self, fd: int, mask: int) -> None:
        """Watch it for something else, or once more. Raises OSError."""
        self._epoll.modify(fd, mask)

    def unwatch(self, fd: int) -> None:
        """Do so no longer; to be called before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def poll(self, timeout: float) -> int:
        """Wait for facts, `timeout` seconds at most (`NEVER`: for ever), and handle all there are; returns how many."""
        most = max(LEAST_EVENTS, len(self._handlers))
        ready = self._epoll.poll(None if timeout == NEVER else min(timeout, MAX_SLEEP), most)
        for fd, _ in ready:
            handler = self._handlers.get(fd)  # one before may have taken it away
            if handler is not None:
                handler()
        return len(ready)
