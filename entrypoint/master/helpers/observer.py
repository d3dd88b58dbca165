"""The line to the observer, the process that serves HTTP.

It speaks with strangers, so it gets answers and nothing else: it can ask how things are, and never so often that the
master has to do much for it.
"""

# It is announced only when it says that it serves.

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING

from entrypoint.master.helpers.helper import Helper
from entrypoint.observer.messages import SERVES

if TYPE_CHECKING:
    from typing import Any

    from entrypoint.master.helpers.helper import Spawn
    from entrypoint.master.log import Log
    from entrypoint.master.part import Tell
    from entrypoint.master.reactor import Reactor
    from entrypoint.master.snapshot import Snapshot


class Observer(Helper):
    """Its listening socket is the master's, so that it can be killed and nobody is refused."""

    name = "observer"

    def __init__(
        self,
        reactor: Reactor,
        tell: Tell,
        spawn: Spawn,
        log: Log,
        *,
        listener: int,
        address: str,
        snapshot: Snapshot,
    ) -> None:
        """`address` is where `listener` listens."""
        super().__init__(reactor, tell, spawn, log)
        self._listener = listener
        self._address = address  # empty once it has been told that somebody answers there
        self._snapshot = snapshot
        self._wanted = False  # the first workers run

    def descriptors(self) -> list[int]:
        """Where it accepts."""
        return [self._listener]

    def begin(self) -> None:
        """Let it begin at once, unless the first workers are still to be started."""
        if self._wanted:
            self._answer({"id": 0, "ok": True})

    def wake(self) -> None:
        """The first workers run: what it has to import does not take the CPU from them any more."""
        self._wanted = True
        self.begin()

    def told(self, line: bytes) -> None:
        """It asks something, or says that it serves."""
        if line == SERVES:
            if self._address:
                self._log.emit("info", "observer_listens", bind=self._address)
                self._address = ""
            return
        import json

        try:
            question = json.loads(line)
            number, what = int(question["id"]), question["ask"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        answer: dict[str, Any] = {"id": number, "ok": True}
        if what == "ping":
            answer |= self._snapshot.health()
        elif what == "snapshot":
            answer["snapshot"] = self._snapshot.metrics()
        else:
            return
        self._answer(answer)

    def _answer(self, answer: dict[str, Any]) -> None:
        # It runs on the same interpreter, and JSON would take the master longer than all the rest of it.
        data = marshal.dumps(answer)
        self.send(len(data).to_bytes(4, "big") + data)
