"""Sockets that the master holds and workers inherit."""

from __future__ import annotations

import functools
import os
import signal
import socket
import stat
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Master, Start

# Answers each connection on its first socket; dies, if told to, after so many of them: between two, never in one.
SERVER = """
import os, signal, socket, sys
right = os.environ["LISTEN_PID"] == str(os.getpid())
print("SERVING", os.environ["LISTEN_FDS"], os.environ["LISTEN_FDNAMES"], right, flush=True)
sock = socket.socket(fileno=3)
signal.signal(signal.SIGUSR1, lambda *_: print("told", flush=True))
if "DEAF" in os.environ:
    signal.signal(signal.SIGTERM, lambda *_: print("not going", flush=True))
left = int(os.environ.get("DIE_AFTER", 0))
while True:
    connection, _ = sock.accept()
    if connection.recv(100):  # else somebody only looked whether anybody accepts
        connection.sendall(os.environ["ENTRYPOINT_SLOT"].encode())
    connection.close()
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def server(script: Callable[[str, str], str]) -> str:
    return f"[{sys.executable}, -S, {script('server.py', SERVER)}]"


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number: int = sock.getsockname()[1]
        return number


def connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    sock = socket.create_connection((host, port), timeout=10)
    sock.sendall(b"?")
    return sock


def answer(sock: socket.socket) -> str:
    with sock:
        return sock.recv(100).decode()


def ask(port: int, host: str = "127.0.0.1") -> str:
    return answer(connect(port, host))


def test_names_number_and_pid(start: Start, server: str, port: int, tmp_path: Path) -> None:
    master = start(
        f"""
        sockets: {{http: {{bind: "127.0.0.1:{port}"}}, admin: {{bind: "unix:{tmp_path}/admin"}}}}
        pools: {{web: {{command: {server}, workers: 2, sockets: [http, admin]}}}}
        """
    )
    assert master.wait_for_line("SERVING.*")[0] == "SERVING 2 http:admin True"
    assert ask(port) in {"0", "1"}
    pid = master.wait_for("worker_started")["pid"]
    # It may be about to read its program still.
    master.until(lambda: sorted(os.listdir(f"/proc/{pid}/fd"), key=int) == ["0", "1", "2", "3", "4"])
    assert master.stop()[0] == 0
    assert not (tmp_path / "admin").exists()
    with pytest.raises(ConnectionRefusedError):
        ask(port)


@pytest.mark.parametrize(
    "bind",
    [
        ("127.0.0.1:{port}", {"127.0.0.1"}),
        ("0.0.0.0:{port}", {"127.0.0.1"}),
        ("[::1]:{port}", {"::1"}),
        ("[::]:{port}", {"::1"}),
        (":{port}", {"::1", "127.0.0.1"}),
    ],
)
@pytest.mark.parametrize("reuse", ["false", "true"])
def test_addresses(start: Start, server: str, port: int, bind: tuple[str, set[str]], reuse: str) -> None:
    address, reached = bind[0].format(port=port), bind[1]
    master = start(
        f"""
        sockets: {{http: {{bind: "{address}", reuse_port: {reuse}}}}}
        pools: {{web: {{command: {server}, sockets: [http]}}}}
        """
    )
    master.wait_for_line("SERVING")
    for host in ("127.0.0.1", "::1"):
        if host in reached:
            assert ask(port, host) == "0"
        else:
            with pytest.raises(ConnectionRefusedError):
                ask(port, host)
    assert master.stop()[0] == 0


def test_a_unix_socket_with_mode_and_owner(start: Start, server: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:  # as a master that was killed leaves it
        stale.bind(str(path))
    config = f"""
        sockets: {{http: {{bind: "unix:{path}", mode: "0620", owner: "nobody:daemon"}}}}
        pools: {{web: {{command: {server}, sockets: [http]}}}}
        """
    master = start(config)
    master.wait_for_line("SERVING")
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o620
    assert (found.st_uid, found.st_gid) == (65534, 1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"?")
        assert client.recv(10) == b"0"
    second = start(config)
    assert second.wait() == 1
    assert second.errors == (
        f"entrypoint: cannot bind unix:{path} (socket http): address already in use;"
        " another process accepts connections on it\n"
    )
    assert path.exists()  # the loser leaves the winner's file alone
    assert master.stop()[0] == 0


def test_a_path_that_is_no_socket_is_left_alone(start: Start, server: str, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    master = start(
        f"""
        sockets: {{http: {{bind: "unix:{path}"}}}}
        pools: {{web: {{command: {server}, sockets: [http]}}}}
        """
    )
    assert master.wait() == 1
    assert master.errors.startswith(f"entrypoint: cannot bind unix:{path} (socket http): ")
    assert path.read_text() == "data"


def test_a_port_that_is_taken_names_who_has_it(start: Start, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        master = start(
            f"""
            sockets: {{http: {{bind: "127.0.0.1:{port}"}}}}
            pools: {{web: {{command: {server}, sockets: [http]}}}}
            init: [{{name: first, command: [touch, ran]}}]
            """
        )
        assert master.wait() == 1
        assert master.errors.startswith(
            f"entrypoint: cannot bind 127.0.0.1:{port} (socket http): address already in use; pid {os.getpid()} ("
        )
        assert f"listens on port {port}" in master.errors
        assert not master.all("worker_started")


def test_a_socket_that_the_master_was_given(start: Start, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        number = given.fileno()
        port = given.getsockname()[1]
        master = start(
            f"""
            sockets: {{http: {{bind: "fd:{number}"}}}}
            pools: {{web: {{command: {server}, sockets: [http]}}}}
            """,
            pass_fds=(number,),
        )
        assert master.wait_for_line("SERVING.*")[0] == "SERVING 1 http True"
        assert ask(port) == "0"
        assert master.stop()[0] == 0


def test_a_descriptor_that_is_no_socket(start: Start, server: str) -> None:
    master = start(f"sockets: {{http: {{bind: 'fd:77'}}}}\npools: {{web: {{command: {server}, sockets: [http]}}}}")
    assert master.wait() in {1, 78}
    assert "fd:77" in master.errors
    assert "Traceback" not in master.errors


def pool(server: str, port: int, *, workers: int = 1, reuse: bool = False, more: str = "") -> str:
    return f"""
        sockets: {{http: {{bind: "127.0.0.1:{port}", reuse_port: {str(reuse).lower()}}}}}
        pools:
          web:
            command: {server}
            workers: {workers}
            sockets: [http]
            restart: {{min_uptime: 0s}}
            {more}
        """


def stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return ") T " in file.read()


@pytest.mark.parametrize("reuse", [False, True])
def test_the_queue_of_a_killed_worker_is_served_by_its_successor(
    start: Start, server: str, port: int, *, reuse: bool
) -> None:
    master = start(pool(server, port, reuse=reuse))
    for _ in range(5):
        pid = master.wait_for("worker_started")["pid"]
        assert ask(port) == "0"
        os.kill(pid, signal.SIGSTOP)
        master.until(functools.partial(stopped, pid))
        queued = [connect(port) for _ in range(20)]
        os.kill(pid, signal.SIGKILL)
        assert [answer(sock) for sock in queued] == ["0"] * 20
    assert master.stop()[0] == 0


@pytest.mark.parametrize("reuse", [False, True])
def test_no_connection_is_lost_while_workers_die_under_load(
    start: Start, server: str, port: int, *, reuse: bool
) -> None:
    master = start(pool(server, port, workers=2, reuse=reuse, more="env: {DIE_AFTER: '25'}"))
    master.wait_for_line("SERVING")
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: ask(port), range(400)))
    assert set(answers) <= {"0", "1"}
    assert len(answers) == 400
    code, _ = master.stop()
    assert code == 0
    assert len(master.all("worker_exited", signal="KILL")) >= 14


def test_each_worker_has_a_socket_of_its_own(start: Start, server: str, port: int) -> None:
    master = start(pool(server, port, workers=3, reuse=True))
    pids = [master.wait_for("worker_started", slot=slot)["pid"] for slot in range(3)]
    for _ in range(3):
        master.wait_for_line("SERVING")
    master.until(lambda: {ask(port) for _ in range(40)} == {"0", "1", "2"})
    assert len({os.readlink(f"/proc/{pid}/fd/3") for pid in pids}) == 3
    old = os.readlink(f"/proc/{pids[1]}/fd/3")
    os.kill(pids[1], signal.SIGKILL)
    successor = master.wait_for("worker_started", slot=1)["pid"]
    master.until(
        lambda: len(os.listdir(f"/proc/{successor}/fd")) >= 4 and os.readlink(f"/proc/{successor}/fd/3") == old
    )
    assert master.stop()[0] == 0


def test_a_worker_that_is_to_stop_gets_no_new_connection(start: Start, server: str, port: int) -> None:
    master = start(pool(server, port, workers=3, reuse=True, more="env: {DEAF: '1'}\n            stop: {timeout: 10s}"))
    for slot in range(3):
        master.wait_for("worker_started", slot=slot)
    master.until(lambda: {ask(port) for _ in range(40)} == {"0", "1", "2"})
    master.send(signal.SIGTTOU)  # the oldest is to go, and does not: it goes on accepting
    master.wait_for("worker_stopping", slot=0, reason="scale_down")
    master.wait_for_line("not going")
    assert [ask(port) for _ in range(100)].count("0") == 0
    assert master.stop(signal.SIGQUIT)[0] == 137


def test_a_dead_workers_socket_is_not_chosen(start: Start, server: str, port: int) -> None:
    config = pool(server, port, workers=3, reuse=True).replace("{min_uptime: 0s}", "{policy: never}")
    master = start(config)
    pids = [master.wait_for("worker_started", slot=slot)["pid"] for slot in range(3)]
    master.until(lambda: {ask(port) for _ in range(40)} == {"0", "1", "2"})
    os.kill(pids[2], signal.SIGKILL)
    master.wait_for("worker_exited", slot=2)
    assert {ask(port) for _ in range(100)} == {"0", "1"}
    assert master.stop()[0] == 143


def test_what_is_queued_when_the_stop_comes_is_served(
    start: Start, port: int, script: Callable[[str, str], str]
) -> None:
    """The worker finishes its queue on TERM; newcomers are refused when it has closed its copy, not reset."""
    polite = script(
        "polite.py",
        "import signal, socket\n"
        "sock = socket.socket(fileno=3)\n"
        "print('up', flush=True)\n"
        "signal.sigwait({signal.SIGTERM})\n"
        "sock.setblocking(False)\n"
        "try:\n"
        "    while True:\n"
        "        c, _ = sock.accept()\n"
        "        c.setblocking(True); c.recv(10); c.sendall(b'late'); c.close()\n"
        "except BlockingIOError:\n"
        "    pass\n",
    )
    launcher = "import signal, os, sys; signal.pthread_sigmask(0, {15}); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"  # fmt: skip  # noqa: E501 - a program
    command = f"[{sys.executable}, -c, '{launcher}', {polite}]"
    master = start(pool(command, port))
    master.wait_for_line("up")
    queued = [connect(port) for _ in range(10)]
    code, _ = master.stop()
    assert code == 0
    assert [answer(sock) for sock in queued] == ["late"] * 10
    assert master.wait_for("socket_closed", socket="http")["queued"] == 10


# -- real servers --------------------------------------------------------------------------------------------


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
        body: bytes = response.read()
        return body.decode()


APP = """
import os
async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": os.environ["ENTRYPOINT_WORKER"].encode()})
def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [os.environ["ENTRYPOINT_WORKER"].encode()]
"""


@pytest.mark.parametrize(
    "command",
    [
        "[uvicorn, 'app:asgi', --fd, '3', --lifespan, 'off']",
        "[gunicorn, 'app:wsgi', --no-control-socket]",
    ],
    ids=["uvicorn", "gunicorn"],
)
@pytest.mark.parametrize("reuse", [False, True])
def test_real_servers(start: Start, port: int, tmp_path: Path, command: str, *, reuse: bool) -> None:
    (tmp_path / "app.py").write_text(APP)
    master: Master = start(pool(command, port, workers=2, reuse=reuse), env={"PYTHONPATH": str(tmp_path)})
    master.wait_for("master_started")
    with ThreadPoolExecutor(4) as clients:  # queued from the first moment on, before any server is up
        answers = list(clients.map(lambda _: get(port), range(40)))
    assert set(answers) <= {"web/0", "web/1"}
    os.kill(master.wait_for("worker_started", slot=0)["pid"], signal.SIGKILL)
    master.wait_for("worker_started", slot=0)
    assert get(port) in {"web/0", "web/1"}
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 5
