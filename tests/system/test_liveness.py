"""Workers that are looked at from outside, and the monitor that looks."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.system.live import Live

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Master, Start

    Script = Callable[[str, str], str]

# Listens when there is a file `open`, and answers everybody, badly while there is a file `sick-SLOT`. A tcp one that
# is sick closes its socket. A new life is healthy.
SERVER = f"""#!{sys.executable} -S
import os, select, signal, socket, sys
kind, host, port = sys.argv[1:]
sick = "sick-" + os.environ["ENTRYPOINT_SLOT"]
if os.path.exists(sick):
    os.unlink(sick)
while not os.path.exists("open"):
    select.select([], [], [], 0.02)
listener = socket.create_server((host, int(port)))
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"READY=1", "\\0" + os.environ["NOTIFY_SOCKET"][1:])
while True:
    connection, _ = listener.accept()
    is_sick = os.path.exists(sick)
    answer = b"503 Sick" if is_sick else b"200 OK"
    try:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 " + answer + b"\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    except OSError:
        pass
    connection.close()
    while is_sick and kind == "tcp":
        listener.close()
        signal.pause()
"""
FAST = "period: 100ms, timeout: 8s"
PROBES = {
    "exec": "exec: [sh, -c, 'test ! -e sick-$ENTRYPOINT_SLOT']",
    "http": "http: 'http://127.1.0.1$(ENTRYPOINT_SLOT):{port}/healthz'",
    "tcp": "tcp: '127.1.0.1$(ENTRYPOINT_SLOT):{port}'",
}


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:
    return Live(start, entrypoint, tmp_path)


@pytest.fixture
def server(script: Script) -> str:
    return script("server", SERVER)


def free_port(host: str = "127.1.0.10") -> int:
    with socket.create_server((host, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def monitor(master: Master, other_than: int = 0) -> int:
    """The master's child that does the looking."""

    def look() -> list[int]:
        commands = master.descendants()
        return [p for p in master.children() if p != other_than and commands.get(p, "").endswith(" monitor ")]

    found: list[int] = master.until(look, timeout=20)
    return found[0]


# -- liveness ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PROBES)
def test_a_worker_that_fails_its_probe_is_replaced_and_no_other(
    live: Live, server: str, tmp_path: Path, kind: str
) -> None:
    port = free_port()
    (tmp_path / "open").touch()
    master = live.start(
        f"""
        pools:
          web:
            command: [{server}, {kind}, 127.1.0.1$(ENTRYPOINT_SLOT), '{port}']
            workers: 2
            cwd: {tmp_path}
            ready: {{when: notify}}
            restart: {{min_uptime: 0s}}
            liveness: {{{PROBES[kind].format(port=port)}, {FAST}, failure_threshold: 2}}
        """,
        pid1=True,
    )
    healthy = master.wait_for("worker_ready", slot=0)["pid"]
    pid = master.wait_for("worker_ready", slot=1)["pid"]
    (tmp_path / "sick-1").touch()
    master.wait_for("probe_failing", pid=pid, kind="live", level="warning")
    found = master.wait_for("worker_not_live", slot=1, pid=pid, level="error")
    assert "2 times in a row" in found["error"]
    master.wait_for("worker_stopping", pid=pid, reason="liveness")
    ended = master.wait_for("worker_exited", pid=pid)
    assert (ended["reason"], ended["signal"]) == ("liveness", "TERM")
    again = master.wait_for("worker_ready", slot=1)["pid"]
    assert [w["pid"] for w in live.pool()["workers"]] == [healthy, again]
    assert live.pool()["restarts"] == 1
    assert master.stop()[0] == 0
    assert len(master.all("worker_not_live")) == 1


def test_a_command_looks_as_the_worker_it_looks_at(start: Start, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen").chmod(0o777)
    see = f'echo "$SECRET|$1|$(id -u)|$(id -g)|$(pwd -P)|$HOME" >{tmp_path}/seen/$ENTRYPOINT_WORKER_$$'
    master = start(
        f"""
        pools:
          web:
            command: [sleep, '1000']
            user: nobody
            cwd: /usr
            env: {{SECRET: {{file: {tmp_path}/secret}}, COMPOSED: $(ENTRYPOINT_POOL)-$(ENTRYPOINT_SLOT)}}
            ready: {{after: 0s}}
            liveness: {{exec: [sh, -c, '{see}', sh, $(COMPOSED)], {FAST}}}
        """
    )
    master.wait_for("worker_ready")
    seen = master.until(lambda: {text for f in (tmp_path / "seen").iterdir() if (text := f.read_text())})
    assert seen == {"from a file|web-0|65534|65534|/usr|/nonexistent\n"}
    assert master.stop()[0] == 0
    assert not master.all("probe_failing")


def test_a_probe_that_hangs_delays_nothing(start: Start, tmp_path: Path) -> None:
    """Neither the look at another worker nor the end."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(20)
        config = f"""
            pools:
              deaf:
                command: [sleep, '1000']
                ready: {{after: 0s}}
                liveness: {{http: 'http://127.0.0.1:{mute.getsockname()[1]}/', period: 100ms, timeout: 1h}}
              stuck:
                command: [sleep, '1000']
                ready: {{after: 0s}}
                liveness: {{exec: [sh, -c, 'trap "" TERM; sleep 999'], period: 100ms, timeout: 1h}}
              web:
                command: [sleep, '1000']
                ready: {{after: 0s}}
                restart: {{min_uptime: 0s}}
                liveness: {{exec: [test, '!', -e, {tmp_path}/sick], {FAST}, failure_threshold: 1}}
        """
        master = start(config, pid1=True)
        asked, _ = mute.accept()
        master.until(lambda: any(command.endswith("sleep 999 ") for command in master.descendants().values()))
        (tmp_path / "sick").touch()
        pid = master.wait_for("worker_not_live", pool="web")["pid"]
        (tmp_path / "sick").unlink()
        master.wait_for("worker_exited", pid=pid, reason="liveness")
        code, seconds = master.stop()
        asked.close()
    assert code == 0
    assert seconds < 5
    assert {e["pool"] for e in master.all("worker_exited", reason="liveness")} == {"web"}


def test_a_probe_that_takes_too_long_has_failed(start: Start) -> None:
    master = start(
        """
        pools:
          web:
            command: [sleep, '1000']
            ready: {after: 0s}
            liveness: {exec: [sleep, '999'], period: 100ms, timeout: 200ms, failure_threshold: 2}
        """
    )
    assert "timed out after 0.2s, 2 times in a row" in master.wait_for("worker_not_live")["error"]
    assert master.wait_for("worker_exited")["reason"] == "liveness"
    assert master.stop()[0] == 0


# -- the monitor ---------------------------------------------------------------------------------------------


def web(tmp_path: Path) -> str:
    return f"""
        pools:
          web:
            command: [sleep, '1000']
            workers: 3
            ready: {{after: 0s}}
            restart: {{min_uptime: 0s}}
            liveness: {{exec: [test, '!', -e, '{tmp_path}/sick-$(ENTRYPOINT_SLOT)'], {FAST}}}
        """


def test_a_monitor_that_is_killed_again_and_again_does_no_harm_and_comes_back(live: Live, tmp_path: Path) -> None:
    master = live.start(web(tmp_path), pid1=True)
    pids = [master.wait_for("worker_ready", slot=slot)["pid"] for slot in range(3)]
    pid = 0
    for _ in range(3):
        pid = monitor(master, other_than=pid)
        os.kill(pid, signal.SIGKILL)
    monitor(master, other_than=pid)
    assert not master.all("worker_exited")
    (tmp_path / "sick-2").touch()
    assert master.wait_for("worker_not_live", slot=2)["pid"] == pids[2]
    (tmp_path / "sick-2").unlink()
    master.wait_for("worker_exited", pid=pids[2], reason="liveness")
    master.wait_for("worker_ready", slot=2)
    assert live.pids()[:2] == pids[:2]
    assert master.stop()[0] == 0


def test_a_monitor_that_is_stopped_holds_up_nothing(live: Live, tmp_path: Path) -> None:
    master = live.start(web(tmp_path))
    pids = [master.wait_for("worker_ready", slot=slot)["pid"] for slot in range(3)]
    os.kill(monitor(master), signal.SIGSTOP)
    os.kill(pids[0], signal.SIGKILL)
    master.wait_for("worker_exited", pid=pids[0], reason="signal")
    master.wait_for("worker_ready", slot=0)
    assert live.pids()[1:] == pids[1:]
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 5


def test_nothing_looks_where_there_is_nothing_to_look_at(start: Start) -> None:
    master = start("pools: {web: {command: [sleep, '1000'], ready: {after: 0s}}}")
    pid = master.wait_for("worker_ready")["pid"]
    master.until(lambda: master.children() == [pid])
    assert master.stop()[0] == 0


# -- readiness -----------------------------------------------------------------------------------------------


def test_a_probe_decides_when_a_worker_is_ready(live: Live, server: str, tmp_path: Path) -> None:
    port = free_port()
    master = live.start(
        f"""
        pools:
          by-exec:
            command: [sleep, '1000']
            ready: {{exec: [test, -e, open], {FAST}, failure_threshold: 1}}
            cwd: {tmp_path}
          by-http:
            command: [{server}, http, 127.1.0.10, '{port}']
            ready: {{http: 'http://127.1.0.1$(ENTRYPOINT_SLOT):{port}/', {FAST}, failure_threshold: 1}}
            cwd: {tmp_path}
          by-tcp:
            command: [{server}, tcp, 127.1.0.20, '{port}']
            ready: {{tcp: '127.1.0.2$(ENTRYPOINT_SLOT):{port}', {FAST}, failure_threshold: 1}}
            cwd: {tmp_path}
          last: {{command: [sleep, '1000'], after: [by-exec, by-http, by-tcp]}}
        """
    )
    names = ("by-exec", "by-http", "by-tcp")
    for name in names:
        master.wait_for("probe_failing", pool=name, kind="ready")
    assert {live.pool(name)["workers"][0]["state"] for name in names} == {"starting"}
    assert live.pool("last")["workers"] == []
    (tmp_path / "open").touch()
    for name in names:
        master.wait_for("worker_ready", pool=name)
    master.wait_for("worker_started", pool="last")
    assert master.stop()[0] == 0


@pytest.mark.parametrize("pid1", [False, True])
def test_a_server_that_accepts_is_ready(live: Live, script: Script, tmp_path: Path, *, pid1: bool) -> None:
    accept = script(
        "accept",
        f"#!{sys.executable} -S\nimport os, select, socket\nwhile not os.path.exists('open'):\n"
        "    select.select([], [], [], 0.02)\nsocket.socket(fileno=3).accept()\n",
    )
    port = free_port("127.0.0.1")
    config = f"""
        sockets: {{http: {{bind: '127.0.0.1:{port}'}}}}
        pools:
          web: {{command: [{accept}], cwd: {tmp_path}, sockets: [http], ready: {{when: accepting}}}}
    """
    master = live.start(config, pid1=pid1)
    master.wait_for("worker_started")
    monitor(master)
    assert live.pool()["workers"][0]["state"] == "starting"
    (tmp_path / "open").touch()
    master.wait_for("worker_ready")
    assert master.stop()[0] == 0
    assert not master.all("worker_not_visible")
