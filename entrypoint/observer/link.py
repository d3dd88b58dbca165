"""The line to the master: questions are one JSON object a line, answers a size of 4 bytes and what `marshal` makes.

What several ask at the same time is asked once, and under a flood only so often: nobody on the network can keep the
master busy. An answer is never used again for a question that came after it, and there are no figures to fall back on:
a master that does not answer is what a probe is to find.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import marshal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

PATIENCE = 1.0  # seconds until a master that does not answer counts as absent
LOST = 5.0  # more seconds until a question counts as lost and is asked again
GAP = 0.1  # seconds between an answer and the next question of its kind


class NoAnswer(Exception):  # noqa: N818 - not every one is an error: a master may just be busy
    """The master did not answer in time, or could not."""


class Ask(NamedTuple):
    """A question that is open."""

    number: int
    deadline: float
    answer: asyncio.Future[dict[str, Any]]


class Link(asyncio.Protocol):
    """The observer's end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.WriteTransport | None = None
        self._numbers = itertools.count(1)
        self._open: dict[str, Ask] = {}
        self._answered: dict[str, float] = {}
        self._rest = bytearray()

    async def ask(self, what: str) -> dict[str, Any]:
        """The master's answer; who asks the same meanwhile gets the same object. Raises NoAnswer.

        A question that is not answered is not asked again for some time: a stuck master is reported at once meanwhile,
        and does not find a heap of questions when it comes back.
        """
        ask = self._open.get(what)
        if ask is None or self._loop.time() > ask.deadline + LOST:
            ask = self._begin(what)
        try:
            async with asyncio.timeout_at(ask.deadline):
                answer = await asyncio.shield(ask.answer)
        except TimeoutError:
            raise NoAnswer(f"no answer within {PATIENCE:g} s") from None
        if not answer.get("ok"):
            raise NoAnswer(answer.get("error") or "it refused")
        return answer

    def _begin(self, what: str) -> Ask:
        at = max(self._loop.time(), self._answered.get(what, 0.0) + GAP)
        ask = self._open[what] = Ask(next(self._numbers), at + PATIENCE, self._loop.create_future())
        self._loop.call_at(at, self._send, ask.number, what)
        return ask

    def _send(self, number: int, what: str) -> None:
        if self._transport is not None:
            self._transport.write(json.dumps({"id": number, "ask": what}).encode() + b"\n")

    def say(self, line: bytes) -> None:
        """Tell the master something that it does not answer."""
        if self._transport is not None:
            self._transport.write(line + b"\n")

    # -- asyncio.Protocol ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - for the type checker
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take in a piece of the master's answers, which may be megabytes long."""
        self._rest += data
        while len(self._rest) >= (end := 4 + int.from_bytes(self._rest[:4], "big")):
            answer = marshal.loads(memoryview(self._rest)[4:end])  # noqa: S302 - the master is trusted
            del self._rest[:end]
            self._hear(answer)

    def _hear(self, answer: dict[str, Any]) -> None:
        for what, ask in self._open.items():
            if ask.number == answer["id"]:
                del self._open[what]
                self._answered[what] = self._loop.time()
                ask.answer.set_result(answer)
                return

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever the reason, it is the end
        """End: without a master there is nothing to observe."""
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)
