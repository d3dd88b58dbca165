"""Replacing workers under load: whether a request is lost, how long others wait, how long it takes."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import namespace
from .measure import environment, tail, workspace
from .servers import WORKERS
from .traffic import HOST, Load, Plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .servers import Managed, Server
    from .traffic import Traffic

SATURATING = Plan(oneshot=64, keep=16, think_ms=20)  # as fast as it goes
FAST = Plan(oneshot=32, keep=16, think_ms=20, processes=2)
STEADY = Plan(rate=600, oneshot=500, keep=16, think_ms=40)  # 1,000 requests a second, about half of what it could be
_REST = 1.5  # seconds before, between and after reloads
_START = 30.0
_GONE = 60.0  # what a reload may take


@dataclass
class Churn:
    """What requests came to while one server's workers were replaced in every way."""

    system: str
    rollouts: int = 0
    resizes: int = 0
    stops: int = 0
    seconds: float = 0.0
    connections: int = 0  # one-shot, that is new ones
    kept: int = 0  # requests on connections that are kept alive
    retried: int = 0  # of these, made again since the idle connection had been closed meanwhile
    failures: dict[str, int] = field(default_factory=dict)
    told: str = ""
    failure: str = ""  # of the measurement


@dataclass
class Reload:
    """What requests came to while a server replaced its workers in its own way."""

    system: str
    requests: int = 0
    retried: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    calm_p99_ms: float | None = None
    p99_ms: float | None = None  # of the requests that were due during a reload
    reload_ms: list[float] = field(default_factory=list)
    told: str = ""
    failure: str = ""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def _start(server: Server, path: Path, log: Path) -> tuple[int, int]:
    """Start a server and wait until it answers; returns its pid and its port. Raises TimeoutError."""
    port = free_port()
    master = namespace.spawn(server.command(path, port), environment(), log)
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((HOST, port), timeout=1) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                if sock.recv(100).startswith(b"HTTP/1.1 200"):
                    return master, port
        except OSError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"no answer after {_START:g} s")


def churn(server: Managed, client: Path, plan: Plan, times: int) -> Churn:
    """Roll, resize and stop single workers, each so many times, under load without a pause."""
    result = Churn(server.name)
    with workspace() as path:
        log = path / "log"
        load = None
        try:
            _, port = _start(server, path, log)
            server.settle(path, WORKERS)
            began = time.monotonic()
            load = Load(client, path, port, plan)
            for _ in range(times):
                server.roll(path)
                result.rollouts += 1
            for _ in range(times):
                server.scale(path)
                result.resizes += 1
            for _ in range(times):
                server.stop_one(path)
                result.stops += 1
            traffic = load.end()
            result.seconds = time.monotonic() - began
            result.connections = traffic.connections
            result.kept = len(traffic.requests) - traffic.connections
            result.retried, result.failures, result.told = traffic.retried, dict(traffic.failures), traffic.told
        except (TimeoutError, RuntimeError) as error:
            result.failure = f"{error}: {tail(log)}"
        finally:
            if load is not None:
                load.kill()
    return result


def reload(server: Server, client: Path, plan: Plan, times: int) -> Reload:
    """Let a server replace its workers so many times under steady load."""
    result = Reload(server.name)
    with workspace() as path:
        log = path / "log"
        load = None
        try:
            master, port = _start(server, path, log)
            time.sleep(_REST)
            load = Load(client, path, port, plan)
            time.sleep(2 * _REST)
            spans = []
            for _ in range(times):
                before = namespace.processes() - load.pids
                old = before - server.lasting(master, before)
                began = time.monotonic()
                os.kill(master, signal.SIGHUP)
                _await(lambda old=old: not _living(old), f"{len(old)} old processes are still there")  # type: ignore[misc] # mypy cannot infer it
                spans.append((began, time.monotonic()))
                time.sleep(_REST)
            _read(result, load.end(), spans)
        except (TimeoutError, RuntimeError, ProcessLookupError) as error:
            result.failure = f"{error}: {tail(log)}"
        finally:
            if load is not None:
                load.kill()
    return result


def _read(result: Reload, traffic: Traffic, spans: list[tuple[float, float]]) -> None:
    """Work out the figures; a reload is over when the old ones are gone and as many new ones have answered."""
    whole = []
    for began, gone in spans:
        known = traffic.pids(began - _REST, began)
        new = sorted(when for pid, when in traffic.pids(began, gone + _REST).items() if pid not in known)
        ended = max(gone, new[len(known) - 1]) if len(new) >= len(known) else gone
        whole.append((began, ended))
        result.reload_ms.append((ended - began) * 1000)
        if len(new) < len(known):
            result.failure = f"{len(new)} new workers answered, after {len(known)} old ones"
    result.requests, result.retried = len(traffic.requests), traffic.retried
    result.failures, result.told = dict(traffic.failures), traffic.told
    result.p99_ms = traffic.p99_ms(whole)
    result.calm_p99_ms = traffic.p99_ms(whole, outside=True)


def _living(pids: set[int]) -> set[int]:
    """Those of the processes that are there and no zombies."""
    found = set()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] not in ("Z", "X"):
                    found.add(pid)
        except OSError:
            continue
    return found


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _GONE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} after {_GONE:g} s")
        time.sleep(0.01)
