"""Scrapes of the metrics, as Prometheus makes them: how long, at what cost to the master, in how much memory."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import namespace
from .measure import Reports, activity, environment, pss_kb, tail, workspace
from .rollouts import free_port
from .systems import Ours
from .traffic import HOST

if TYPE_CHECKING:
    from pathlib import Path

_START = 60.0
_REST = 2.0  # seconds from the last worker's start on: until every helper process is at rest
_PAUSE = 0.15  # seconds between scrapes: more than the observer makes the second of two wait, to spare the master
_HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "Accept-Encoding": "gzip",
}


@dataclass
class Scrapes:
    """What scraping a master with so many workers took."""

    workers: int
    took_ms: list[float] = field(default_factory=list)
    bytes: int = 0
    observer_ms: float | None = None  # CPU, of one scrape
    master_ms: float | None = None  # the same, of the master
    pss_kb: float | None = None  # of the master and the observer
    failure: str = ""


class Observed(Ours):
    """This project with workers that do nothing, and its observer."""

    name = "entrypoint"

    def command(self, path: Path, worker: Path, workers: int, port: int) -> list[str]:
        """Write the configuration; return the command."""
        pool = {"command": [str(worker)], "workers": workers, "ready": {"after": "0s"}}
        config = {
            "control": {"enabled": False},
            "observer": {"bind": f"{HOST}:{port}"},
            "pools": {"web": pool},
        }
        (path / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
        return [*self.executable(), "run", "-c", str(path / "config.yaml")]


def scrape(master: Observed, worker: Path, workers: int, times: int) -> Scrapes:
    """Scrape so often over one connection, with a pause after each."""
    result = Scrapes(workers)
    with workspace() as path:
        reports, port = Reports(path / "fifo"), free_port()
        try:
            argv = master.command(path, worker, workers, port)
            pid = namespace.spawn(argv, environment(BENCH_FIFO=str(path / "fifo")), path / "log")
            deadline = time.monotonic() + _START
            running = 0
            while running < workers:
                running += len(reports.read(deadline))
            time.sleep(_REST)
            observer = namespace.find(b"observer", namespace.processes() - {pid})
            _scrape(result, port, 3)  # the first ones find nothing prepared
            result.took_ms.clear()
            before = activity({observer})[1], activity({pid})[1]
            _scrape(result, port, times)
            after = activity({observer})[1], activity({pid})[1]
            result.observer_ms, result.master_ms = ((b - a) / 1e6 / times for a, b in zip(before, after, strict=True))
            result.pss_kb = pss_kb({observer, pid})
            namespace.stop(pid, _START)
        except (TimeoutError, LookupError, OSError, http.client.HTTPException) as error:
            result.failure = f"{error}: {tail(path / 'log')}"
        finally:
            reports.close()
    return result


def _scrape(result: Scrapes, port: int, times: int) -> None:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    for _ in range(times):
        began = time.monotonic()
        connection.request("GET", "/metrics", headers=_HEADERS)
        response = connection.getresponse()
        body = response.read()
        result.took_ms.append((time.monotonic() - began) * 1000)
        if response.status != http.client.OK:
            raise http.client.HTTPException(f"HTTP {response.status}")
        result.bytes = len(body)
        time.sleep(_PAUSE)
    connection.close()
