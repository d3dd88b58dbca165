"""What is answered on which path."""

from __future__ import annotations

import gzip
import json
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from entrypoint.observer import accept, exposition, proc
from entrypoint.observer.link import NoAnswer
from entrypoint.observer.messages import workers
from entrypoint.observer.metrics import Metrics
from entrypoint.observer.server import Reply, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from entrypoint.observer.link import Link
    from entrypoint.observer.page import Page
    from entrypoint.observer.proc import Usage
    from entrypoint.observer.server import Request

JSON = "application/json; charset=utf-8"
SMALL = 1024  # bytes that are not worth compressing
EFFORT = 1  # of 9: the figures repeat themselves so much that more is not worth the time


class View:
    """A snapshot, what /proc adds to it, and the replies that were made of it."""

    def __init__(self, told: dict[str, Any], spent: dict[str, float]) -> None:
        """`told` is the master's; `spent` the CPU time of each pool in the view before, in seconds."""
        self.told = told
        self.snapshot = {key: value for key, value in told.items() if key != "time"}
        self.usages: dict[int, Usage] = {}
        self.cpu: dict[str, float] = {}
        self.replies: dict[tuple[str, ...], bytes] = {}
        self._see(told["pid"])
        pools = self.snapshot["pools"] = {}
        for name, pool in told["pools"].items():
            shown = workers(name, pool["workers"], told["time"])
            pools[name] = {**pool, "workers": shown}
            cpu = pool["cpu_seconds"]
            for worker in shown:
                usage = self._see(worker["pid"])
                if usage is not None:
                    worker["resident_memory_bytes"] = usage.resident
                    cpu += usage.cpu
            # One that ended since the snapshot is in neither figure, but a counter must not go back: it would count
            # as started over.
            self.cpu[name] = max(cpu, spent.get(name, 0.0))

    def _see(self, pid: int | None) -> Usage | None:
        usage = proc.usage(pid)
        if pid is not None and usage is not None:
            self.usages[pid] = usage
        return usage


class App:
    """The application behind the server."""

    def __init__(self, link: Link, page: Page) -> None:
        self._link = link
        self._page = page
        self._view: View | None = None
        self._exposition = exposition.Exposition()
        self._routes: dict[str, Callable[[Request], Awaitable[Reply]]] = {
            "/": self._show,
            "/livez": self._live,
            "/metrics": self._metrics,
            "/readyz": self._ready,
            "/startupz": self._startup,
            "/status": self._status,
        }

    async def __call__(self, request: Request) -> Reply:
        """Answer a request."""
        route = self._routes.get(request.path)
        if route is None:
            return text(404, "no such path; there are " + " ".join(self._routes))
        if request.method not in ("GET", "HEAD"):
            return text(405, "only GET and HEAD", ("Allow", "GET, HEAD"))
        try:
            return await route(request)
        except NoAnswer as why:
            return text(503, f"cannot ask the master: {why}")

    async def _show(self, request: Request) -> Reply:
        policy = ("Content-Security-Policy", self._page.policy)
        return self._packed(
            request, ("page",), "text/html; charset=utf-8", lambda: self._page.html, self._page.replies, policy
        )

    async def _live(self, request: Request) -> Reply:  # noqa: ARG002 - all routes are called alike
        await self._link.ask("ping")
        return text(200, "ok")

    async def _ready(self, request: Request) -> Reply:
        if "verbose" not in parse_qs(request.query, keep_blank_values=True):
            return _verdict(*(await self._link.ask("ping"))["ready"])
        snapshot = (await self._look()).snapshot
        return _verdict(*snapshot["ready"], *map(_line, snapshot["pools"].items()))

    async def _startup(self, request: Request) -> Reply:  # noqa: ARG002 - all routes are called alike
        return _verdict(*(await self._link.ask("ping"))["startup"])

    async def _status(self, request: Request) -> Reply:
        view = await self._look()
        return self._packed(request, ("status",), JSON, lambda: json.dumps(view.snapshot).encode(), view.replies)

    async def _metrics(self, request: Request) -> Reply:
        view = await self._look()
        openmetrics = accept.takes_openmetrics(request.headers.get("accept", ""))
        kind = exposition.OPENMETRICS if openmetrics else exposition.PLAIN
        encode = self._exposition.openmetrics if openmetrics else self._exposition.plain

        def make() -> bytes:
            return encode(Metrics(view.snapshot, view.usages, view.cpu).collect())

        return self._packed(request, ("metrics", kind), kind, make, view.replies, ("Vary", "Accept, Accept-Encoding"))

    async def _look(self) -> View:
        """A view of now, shared by all who asked before it came. Raises NoAnswer."""
        told = (await self._link.ask("snapshot"))["snapshot"]
        if self._view is None or self._view.told is not told:
            self._view = View(told, self._view.cpu if self._view else {})
        return self._view

    def _packed(
        self,
        request: Request,
        key: tuple[str, ...],
        kind: str,
        make: Callable[[], bytes],
        made: dict[tuple[str, ...], bytes],
        *headers: tuple[str, str],
    ) -> Reply:
        """A reply as the client takes it, compressed or not, made once for all who want the same."""
        if key not in made:
            made[key] = make()
        body = made[key]
        headers = (("Vary", "Accept-Encoding"), *headers)
        if len(body) < SMALL or not accept.takes_gzip(request.headers.get("accept-encoding", "")):
            return Reply(HTTPStatus.OK, body, kind, headers)
        if (*key, "gzip") not in made:
            made[*key, "gzip"] = gzip.compress(body, EFFORT, mtime=0)
        return Reply(HTTPStatus.OK, made[*key, "gzip"], kind, (("Content-Encoding", "gzip"), *headers))


def _verdict(ok: bool, reason: str, *lines: str) -> Reply:  # noqa: FBT001 - as it comes from the master
    return text(200 if ok else 503, "\n".join([*lines, "ok" if ok else reason or "not yet"]))


def _line(item: tuple[str, dict[str, Any]]) -> str:
    name, pool = item
    if not pool["critical"]:
        return f"[ ] {name}: {pool['ready']} of {pool['desired']} ready, not critical"
    if pool["state"] in ("completed", "failed"):
        return f"[{'+' if pool['state'] == 'completed' else '-'}] {name}: {pool['state']}"
    mark = "+" if pool["state"] != "waiting" and pool["ready"] >= min(pool["min_ready"], pool["desired"]) else "-"
    return f"[{mark}] {name}: {pool['ready']} of {pool['desired']} ready, {pool['min_ready']} needed"
