"""`ready: {when: accepting}`: servers that know nothing of us are rolled, and somebody asks them all the time."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.system.live import Live, bounds

if TYPE_CHECKING:
    from tests.system.conftest import Start

# Takes its time to start, like an application with a thousand modules; says who answers.
APP = """
import os, time
time.sleep({slow})
BODY = b"{body} %d" % os.getpid()

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(BODY))]}})
    await send({{"type": "http.response.body", "body": BODY}})

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len(BODY)))])
    return [BODY]
"""
# Accepts one after the other, and on TERM ends between two of them.
SERVER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile sig_atomic_t stopped;
static void stop(int signum) { stopped = signum; }

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, 0);
    sigset_t term, none;
    sigemptyset(&none);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, 0);
    fcntl(3, F_SETFL, O_NONBLOCK);  // another worker may be faster
    usleep(atoi(argv[2]) * 1000);
    while (!stopped) {
        struct pollfd polled = {.fd = 3, .events = POLLIN};
        if (ppoll(&polled, 1, 0, &none) != 1) continue;
        int fd = accept4(3, 0, 0, SOCK_NONBLOCK);
        if (fd < 0) continue;
        struct pollfd asked = {.fd = fd, .events = POLLIN};
        char text[4096];
        poll(&asked, 1, 1000);
        if (read(fd, text, sizeof text) > 0) {
            char *head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
            write(fd, text, snprintf(text, sizeof text, "%s%s %d", head, argv[1], getpid()));
        }
        shutdown(fd, SHUT_WR);
        close(fd);
    }
    return 0;
}
"""


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:
    return Live(start, entrypoint, tmp_path)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number: int = sock.getsockname()[1]
        return number


class Trickle:
    """Asks again and again, each time on a new connection; keeps every answer and every failure."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)
        self.answers: list[str] = []
        self.failures: list[str] = []

    def _ask_on(self) -> None:
        while not self._over.wait(0.005):
            try:
                self.answers.append(self._ask())
            except (OSError, ValueError) as error:
                self.failures.append(repr(error))

    def _ask(self) -> str:
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            data = b""
            while piece := sock.recv(4096):
                data += piece
        head, _, body = data.decode().partition("\r\n\r\n")
        if not head.startswith("HTTP/1.1 200 "):
            raise ValueError(f"not an answer: {data!r}")
        return body

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


SERVERS = {
    "uvicorn": [sys.executable, "-m", "uvicorn", "app:app", "--fd", "3", "--no-access-log"],
    "gunicorn": [
        sys.executable, "-m", "gunicorn", "app:wsgi", "--worker-class", "sync",  # it knows LISTEN_FDS
        "--worker-tmp-dir", "/dev/shm", "--no-control-socket",
    ],
    "C": ["./server"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("server", "reuse"),
    # uvicorn closes on TERM what it has accepted and not read yet: a socket of its own, which is silent by then.
    [("uvicorn", True), ("gunicorn", False), ("C", False), ("C", True)],
)
def test_a_server_is_rolled_when_its_successor_accepts(
    live: Live, tmp_path: Path, port: int, server: str, *, reuse: bool
) -> None:
    def begin(slow: float, body: str) -> str:
        """The next generation, and what is configured of it."""
        (tmp_path / "app.py").write_text(APP.format(slow=slow, body=body))
        argv = [*SERVERS[server], body, str(int(slow * 1000))] if server == "C" else SERVERS[server]
        return f"""
        sockets: {{http: {{bind: "127.0.0.1:{port}", reuse_port: {str(reuse).lower()}}}}}
        pools:
          web:
            command: {argv}
            cwd: {tmp_path}
            workers: 2
            sockets: [http]
            ready: {{when: accepting}}
            restart: {{min_uptime: 300ms}}
            env: {{BODY: {body}, PYTHONDONTWRITEBYTECODE: "1"}}
        """

    if server == "C":
        (tmp_path / "server.c").write_text(SERVER)
        subprocess.run(["gcc", "-w", "-o", tmp_path / "server", tmp_path / "server.c"], check=True)
    master = live.start(begin(0, "one"))
    for _ in range(2):
        master.wait_for("worker_ready")
    with Trickle(port) as trickle:
        master.until(lambda: len(trickle.answers) > 20)
        live.write(begin(0.7, "two"))
        assert live.run("reload", "--wait")[0] == 0
        master.wait_for("rollout_completed")
        enough = len(trickle.answers) + 20
        master.until(lambda: len(trickle.answers) > enough)
    served = [answer.split()[0] for answer in trickle.answers]
    assert served[0] == "one"
    assert served[-1] == "two"
    assert trickle.failures == []
    readies: list[dict[str, Any]] = master.all("worker_ready", pool="web")
    assert all(e["duration"] > 0.7 for e in readies[2:])
    ready, living = bounds(master.events)
    assert ready == 2
    assert living == 3
    assert not master.all("worker_killed")
    assert not master.all("worker_not_visible")
    live.settled(size=2)
    assert master.stop()[0] == 0


def test_a_server_that_does_not_get_to_accept_does_not_replace_one_that_does(
    live: Live, tmp_path: Path, port: int
) -> None:
    """It hangs in an import."""
    (tmp_path / "app.py").write_text(APP.format(slow=0, body="one"))
    master = live.start(
        f"""
        sockets: {{http: {{bind: "127.0.0.1:{port}", reuse_port: true}}}}
        pools:
          web:
            command: {SERVERS["uvicorn"]}
            cwd: {tmp_path}
            sockets: [http]
            ready: {{when: accepting}}
            restart: {{min_uptime: 300ms}}
            env: {{PYTHONDONTWRITEBYTECODE: "1"}}
        """
    )
    old = master.wait_for("worker_ready")["pid"]
    (tmp_path / "app.py").write_text(APP.format(slow=1000, body="two"))
    with Trickle(port) as trickle:
        master.send(signal.SIGHUP)
        new = master.wait_for("worker_started", slot=1)["pid"]
        master.until(lambda: b"uvicorn" in Path(f"/proc/{new}/cmdline").read_bytes())
        enough = len(trickle.answers) + 100
        master.until(lambda: len(trickle.answers) > enough)
        assert live.pool()["rollout"]["phase"] == "replacing"
    assert trickle.failures == []
    assert set(trickle.answers) == {f"one {old}"}
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 2
