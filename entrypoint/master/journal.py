"""What is told of what happens: to the log, and to whoever asks for the last events."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from entrypoint.core import actions as act
from entrypoint.linux.signals import signal_name
from entrypoint.master.reactor import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from entrypoint.master.log import Log
    from entrypoint.master.part import Orders
    from entrypoint.master.reactor import Reactor
    from entrypoint.master.running import Running

LATENCY = 1.0  # seconds that a line waits at most while other work does not end


class Journal:
    """Reports of the core as lines and events, and when lines are written: when nothing else is to be done."""

    def __init__(
        self,
        reactor: Reactor,
        log: Log,
        workers: Mapping[int, Running],
        *,
        last_lines: Callable[[int], list[str] | None],
        note: Callable[[str, dict[str, Any]], None],
    ) -> None:
        """`workers` are those that run, by serial.

        `last_lines` of a worker, where they are captured, are still being filled in; `note` remembers an event.
        """
        self.orders: Orders = {act.Report: self.report}
        self._reactor = reactor
        self._log = log
        self._workers = workers
        self._last_lines = last_lines
        self._note = note
        self._due = NEVER  # when lines are written in any case
        self._waits = False  # for the reader of the log

    def report(self, order: act.Report) -> None:
        """Tell what the core has to say."""
        fields: dict[str, Any] = {}
        if order.pool:
            fields["pool"] = order.pool
        if order.slot is not None:
            fields["slot"] = order.slot
        running = self._workers.get(order.serial) if order.serial else None
        if running is not None:
            fields["pid"] = running.pid
        for key, value in order.fields.items():
            fields[key] = signal_name(value) if key == "signal" and isinstance(value, int) else value
        if order.event == "signal_ignored":
            meaning = f"signals: {{{fields['signal']}: shutdown}}"
            fields["hint"] = f"if it is to stop the container, as the STOPSIGNAL of its image: {meaning}"
        if order.event == "giving_up" and (last := self._last_lines(order.serial)) is not None:
            fields["last_output"] = last
        self._log.emit(order.level, order.event, **fields)
        if order.level != "debug":
            self._note(order.event, fields)

    def write(self, *, idle: bool) -> None:
        """Write when nothing else is to be done; under a load without end, in one go now and then."""
        if not self._log.pending:
            self._due = NEVER
        elif idle:
            self._log.flush(64)
        elif self._due == NEVER:
            self._due = time.monotonic() + LATENCY
        elif time.monotonic() >= self._due:
            self._due = NEVER
            self._log.flush()

    def wait_for_reader(self) -> None:
        """Be woken when a log that could not be written can be."""
        output = self._log.output
        if output is None or self._log.blocked == self._waits:
            return
        try:
            if self._log.blocked:
                self._reactor.watch(output.fd, lambda: self._log.flush(64), select.EPOLLOUT)
            else:
                self._reactor.unwatch(output.fd)
            self._waits = self._log.blocked
        except OSError:  # a file cannot be waited on, and is never full for a moment only
            pass
