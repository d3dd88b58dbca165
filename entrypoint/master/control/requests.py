"""What is asked on the control socket: some of it is only looked up, the rest is for the core."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import actions as act
from entrypoint.core import events as ev
from entrypoint.observer.messages import workers

if TYPE_CHECKING:
    from typing import Any

    from entrypoint.master.control.server import Control
    from entrypoint.master.part import Orders, Tell
    from entrypoint.master.snapshot import Snapshot

ENDED = 200  # rollouts whose end is remembered for who asks late


class Waiter:
    """A client that waits for rollouts to end."""

    def __init__(self, rollouts: tuple[tuple[str, int], ...]) -> None:
        self.open = set(rollouts)
        self.results: list[dict[str, Any]] = []


class Requests:
    """Answers what can be answered at once, and remembers who waits for what."""

    def __init__(self, tell: Tell, snapshot: Snapshot) -> None:
        self.orders: Orders = {act.Answer: self.answer, act.RolloutEnded: self.rollout_ended}
        self.control: Control | None = None  # where they come from
        self._tell = tell
        self._snapshot = snapshot
        self._patient: set[int] = set()  # askers that wait for the end of what they began
        self._waiters: dict[int, Waiter] = {}
        self._ended: dict[tuple[str, int], dict[str, Any]] = {}

    def handle(self, asker: int, request: dict[str, Any]) -> None:
        """Carry out one valid request."""
        what = request["ask"]
        if what == "ping":
            self._say(asker, {"ok": True, "phase": self._snapshot.health()["phase"]})
        elif what == "status":
            found = self._snapshot.status()
            now = found.pop("time")
            for name, pool in found["pools"].items():
                pool["workers"] = workers(name, pool["workers"], now)
            self._say(asker, {"ok": True, "status": found})
        elif what in ("ready", "startup"):
            ok, reason = self._snapshot.health()[what]
            self._say(asker, {"ok": ok, "reason": reason})
        else:
            if request.get("wait"):
                self._patient.add(asker)
            slot, count, signum = request.get("slot"), request.get("count"), request.get("signal", 0)
            self._tell(ev.Asked(asker, what, request.get("pool") or "", slot, count, signum))

    def answer(self, order: act.Answer) -> None:
        """The core's answer."""
        patient = order.asker in self._patient
        self._patient.discard(order.asker)
        if order.error:
            self._say(order.asker, {"ok": False, "error": order.error})
            return
        rollouts = [{"pool": pool, "generation": generation} for pool, generation in order.rollouts]
        self._say(order.asker, {"ok": True, "rollouts": rollouts}, last=not patient)
        if patient:
            self._waiters[order.asker] = Waiter(order.rollouts)
            for rollout in order.rollouts:
                if rollout in self._ended:
                    self._tick_off(order.asker, rollout)
            self._tick_off(order.asker, None)

    def rollout_ended(self, order: act.RolloutEnded) -> None:
        """Tell everybody who waits for it."""
        rollout = order.pool, order.generation
        self._ended[rollout] = {
            "pool": order.pool, "generation": order.generation, "result": order.result, "reason": order.reason,
        }  # fmt: skip
        if len(self._ended) > ENDED:
            del self._ended[next(iter(self._ended))]
        for asker in list(self._waiters):
            self._tick_off(asker, rollout)

    def _tick_off(self, asker: int, rollout: tuple[str, int] | None) -> None:
        waiter = self._waiters.get(asker)
        if waiter is None:
            return
        if rollout in waiter.open:
            waiter.open.discard(rollout)
            waiter.results.append(self._ended[rollout])
        if not waiter.open:
            del self._waiters[asker]
            self._say(asker, {"done": True, "results": waiter.results})

    def _say(self, asker: int, line: dict[str, Any], *, last: bool = True) -> None:
        if self.control is not None:
            self.control.answer(asker, line, last=last)
