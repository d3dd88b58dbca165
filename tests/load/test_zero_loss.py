"""No request is lost while workers are replaced, added, removed and stopped under load.

Who keeps a connection open may find it closed when it is about to be used again: that is HTTP, and such a request may
be made once more (RFC 9112, 9.3.1). The client counts those apart. All others must be answered the first time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.traffic import Load, Traffic
    from tests.system.live import Live

APPS = Path(__file__).parents[2] / "bench/apps"
UVICORN = '[uvicorn, "app:asgi", --fd, "3", --no-access-log]'
GUNICORN = '[gunicorn, --workers, "1", --threads, "4", --no-control-socket, "app:wsgi"]'

# Answers after 5 ms of work, in which it does nothing else.
BUSY_APP = """
import time

async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    until = time.monotonic() + 0.005
    while time.monotonic() < until:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
"""


def config(command: str, port: int, cwd: Path, *, reuse_port: bool) -> str:
    return f"""
        observer: {{enabled: false}}
        sockets: {{http: {{bind: "127.0.0.1:{port}", reuse_port: {str(reuse_port).lower()}}}}}
        pools:
          web:
            command: {command}
            workers: 2
            cwd: {cwd}
            sockets: [http]
            ready: {{when: accepting}}
            restart: {{min_uptime: 0s}}
        """


def check(traffic: Traffic) -> None:
    assert not traffic.failures, traffic.told
    assert traffic.connections > 100


@pytest.mark.parametrize(
    ("command", "reuse_port"),
    [
        pytest.param(UVICORN, True, id="uvicorn with a socket for each worker"),
        pytest.param(GUNICORN, False, id="gunicorn"),
        pytest.param(GUNICORN, True, id="gunicorn with a socket for each worker"),
        pytest.param("server.c", False, id="a server that finishes what it has accepted"),
    ],
)
def test_no_request_is_lost(
    live: Live,
    load: Callable[..., Load],
    compiled: Callable[[str], Path],
    port: int,
    command: str,
    *,
    reuse_port: bool,
) -> None:
    if command == "server.c":
        command = f"[{compiled(command)}]"
    live.start(config(command, port, APPS, reuse_port=reuse_port))
    first = live.settled(size=2)
    client = load(rate=500, oneshot=100, keep=8)

    assert live.run("restart", "web", "--wait")[0] == 0
    second = live.settled(size=2)
    assert not set(first) & set(second)
    assert live.run("scale", "web", "3")[0] == 0
    live.settled(size=3)
    assert live.run("scale", "web", "reset")[0] == 0
    live.settled(size=2)
    oldest = live.pool()["workers"][0]
    assert live.run("signal", f"web/{oldest['slot']}", "TERM")[0] == 0
    live.master.wait_for("worker_exited", pid=oldest["pid"])
    live.settled(size=2)

    check(client.end())
    assert live.master.stop()[0] == 0


def test_a_worker_under_heavy_load_may_read_what_it_has_accepted_before_it_is_stopped(
    live: Live, load: Callable[..., Load], tmp_path: Path, port: int
) -> None:
    (tmp_path / "app.py").write_text(BUSY_APP)
    live.start(config(UVICORN, port, tmp_path, reuse_port=True))
    live.settled(size=2)
    client = load(oneshot=200, keep=0)  # half a second of work for each worker: more than quiesce
    live.master.until(lambda: live.status()["sockets"]["http"]["queued"])

    for _ in range(2):
        oldest = live.pool()["workers"][0]
        assert live.run("signal", f"web/{oldest['slot']}", "TERM")[0] == 0
        live.master.wait_for("worker_exited", pid=oldest["pid"], timeout=20)
        live.settled(size=2)

    check(client.end())
    assert live.master.stop()[0] == 0
