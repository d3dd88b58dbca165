"""A new configuration takes effect while everything runs: what it changes and nothing else, or nothing at all."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import alive, children, poll
from tests.system.live import FAST, Live, command, end, reloaded, sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.conftest import Start

    Script = Callable[[str, str], str]

# Says which of its sockets answers.
SERVER = f"""#!{sys.executable} -S
import os, select, socket
names = os.environ["LISTEN_FDNAMES"].split(":")
socks = {{socket.socket(fileno=3 + n): name for n, name in enumerate(names)}}
while True:
    for sock in select.select(list(socks), [], [])[0]:
        sock.setblocking(False)
        try:
            connection, _ = sock.accept()
        except BlockingIOError:
            continue
        connection.sendall(socks[sock].encode())
        connection.close()
"""
NO_HUP = "[sh, -c, 'trap \"\" TERM; echo deaf; while :; do sleep 0.02; done']"


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:
    return Live(start, entrypoint, tmp_path)


@pytest.fixture
def ports() -> list[int]:
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    numbers = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return numbers


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def told(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        return sock.recv(100).decode()


def refused(live: Live, config: str) -> list[str]:
    """Have a configuration rejected; why it was."""
    live.write(config)
    code, out, error = live.run("reload", "--wait")
    assert (code, out) == (1, "")
    return error.splitlines()


# -- pools ---------------------------------------------------------------------------------------------------


def test_only_what_has_changed_is_touched(live: Live) -> None:
    master = live.start(f"pools: {{a: {sleep(1000)}, b: {sleep(2000)}, c: {sleep(3000)}}}")
    before = {name: live.settled(name, size=1) for name in "abc"}
    live.write(f"pools: {{c: {sleep(3000)}, b: {sleep(2001)}, a: {sleep(1000)}}}")
    code, out, _ = live.run("reload", "--wait")
    assert (code, out) == (
        0, "b: rollout to generation 2 has begun\nb: rollout to generation 2 completed\n",
    )  # fmt: skip
    assert live.pids("a") == before["a"]
    assert live.pids("c") == before["c"]
    assert command(live.settled("b", size=1)[0]) == "sleep 2001"
    assert live.run("reload", "--wait") == (0, "nothing to replace\n", "")
    assert live.status()["config"]["error"] == ""
    assert master.stop()[0] == 0


def test_another_count_restarts_nobody(live: Live) -> None:
    def config(count: int) -> str:
        return f"pools: {{web: {sleep(1000, f'workers: {count}, {FAST}')}}}"

    master = live.start(config(2))
    old = live.settled(size=2)
    reloaded(live, config(4))
    assert live.settled(size=4)[:2] == old
    reloaded(live, config(1))
    assert live.settled(size=1)[0] not in old, "the oldest go"
    assert not master.all("rollout_started")
    assert master.stop()[0] == 0


def test_another_treatment_restarts_nobody_and_takes_effect(live: Live) -> None:
    def config(treatment: str) -> str:
        return f"pools: {{web: {{command: {NO_HUP}, {treatment}}}}}"

    master = live.start(config("stop: {timeout: 1h}, restart: {min_uptime: 1h}"))
    old = live.pids()
    master.wait_for_line("deaf")
    reloaded(
        live,
        config(
            "stop: {timeout: 200ms, signal: USR1}, restart: {min_uptime: 0s}, boot_timeout: 1h, critical: false,"
            "rollout: {max_surge: 3}, min_ready_workers: 50%, ready: {after: 50ms}"
        ),
    )
    assert live.pids() == old
    assert not master.all("rollout_started")
    live.run("scale", "web", "2")
    master.wait_for("worker_ready", slot=1)  # in no time
    reloaded(live, config("stop: {timeout: 200ms}, ready: {after: 50ms}"))
    code, seconds = master.stop()
    assert code == 137
    assert seconds < 5
    assert [e["timeout"] for e in master.all("worker_killed")] == [0.2, 0.2]


def test_another_environment_or_user_is_another_generation(live: Live) -> None:
    master = live.start(f"pools: {{web: {sleep(1000)}}}")
    pids = {*live.settled(size=1)}
    for number, change in enumerate(("env: {A: b}", "umask: '077'", "cwd: /", "user: '1234569'"), 2):
        reloaded(live, f"pools: {{web: {sleep(1000, f'{change}, {FAST}')}}}")
        assert live.pool()["generation"] == number
        pids |= {*live.settled(size=1)}
    assert len(pids) == 5
    assert master.stop()[0] == 0


def test_pools_appear_in_their_order_and_disappear(live: Live, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    cache = f"cache: {sleep(1000, f'ready: {{exec: [test, -e, {gate}], period: 100ms}}')}"
    app = f"app: {sleep(2000, f'after: [web, cache], {FAST}')}"
    master = live.start(f"pools: {{web: {sleep(3000)}}}")
    web = live.settled(size=1)
    live.write(f"pools: {{{app}, {cache}, web: {sleep(3000)}}}")
    assert live.run("reload") == (0, "nothing to replace\n", "")
    master.wait_for("worker_started", pool="cache")
    assert live.pool("app")["state"] == "waiting"
    gate.touch()
    ready, later = master.wait_for("worker_ready", pool="cache"), master.wait_for("worker_started", pool="app")
    assert master.events.index(later) > master.events.index(ready)
    live.settled("app", size=1)
    assert live.run("probe", "startup")[0] == 0

    live.write(f"pools: {{web: {sleep(3000)}}}")
    assert live.run("reload", "--wait")[0] == 0
    for pool in ("app", "cache"):
        master.wait_for("pool_removed", pool=pool)
        master.wait_for("worker_exited", pool=pool)
    master.until(lambda: list(live.status()["pools"]) == ["web"])
    assert live.pids() == web
    assert master.stop()[0] == 0


def test_a_pool_that_comes_back_before_it_is_gone(live: Live) -> None:
    slow = "[sh, -c, 'trap \"sleep 0.5; exit 0\" TERM; echo up; while :; do sleep 0.02; done']"
    with_it = f"pools: {{web: {sleep(1000)}, slow: {{command: {slow}, {FAST}}}}}"
    master = live.start(with_it)
    master.wait_for_line("up")
    old = live.settled("slow", size=1)
    reloaded(live, f"pools: {{web: {sleep(1000)}}}")
    reloaded(live, with_it)
    assert live.settled("slow", size=1) != old
    assert master.stop()[0] == 0


def test_a_pool_that_need_not_wait_any_more_is_started(live: Live) -> None:
    never = f"ready: {{exec: ['false'], period: 1s}}, {FAST.partition(', ')[2]}"
    master = live.start(f"pools: {{cache: {sleep(1000, never)}, web: {sleep(2000, f'after: [cache], {FAST}')}}}")
    master.wait_for("worker_started", pool="cache")
    reloaded(live, f"pools: {{web: {sleep(2000)}}}")
    live.settled(size=1)
    assert live.status()["phase"] == "running"
    assert master.stop()[0] == 0


def test_what_crashes_in_a_loop_is_mended(live: Live) -> None:
    restart = "restart: {min_uptime: 300ms, give_up_after: 0, backoff: {initial: 1h, max: 1h}}"
    more = f"workers: 2, ready: {{after: 50ms}}, {restart}"
    master = live.start(f"pools: {{web: {{command: [sh, -c, exit 1], {more}}}}}")
    for _ in range(2):
        master.wait_for("pool_backoff")
    live.write(f"pools: {{web: {{command: [sh, -c, exit 2], {more}}}}}")
    code, _, error = live.run("reload", "--wait")
    assert code == 1
    assert "ended by exit code 2" in error
    reloaded(live, f"pools: {{web: {sleep(1000, more)}}}")
    live.settled(size=2)
    assert not master.all("giving_up")
    assert master.stop()[0] == 0


def test_a_change_in_the_middle_of_a_rollout_supersedes_it_and_one_that_is_taken_back_ends_it(live: Live) -> None:
    def config(seconds: int, ready: str = "ready: {when: notify}, boot_timeout: 0s") -> str:
        return f"pools: {{web: {sleep(seconds, f'workers: 2, restart: {{min_uptime: 300ms}}, {ready}')}}}"

    now = "ready: {after: 50ms}"
    master = live.start(config(1000, now))
    old = live.settled(size=2)
    live.write(config(2000))
    first = live.begin("reload", "--wait")
    master.wait_for("worker_started", slot=2)
    live.write(config(1000))
    assert live.run("reload") == (0, "nothing to replace\n", "")
    assert end(first)[::2] == (
        1, "entrypoint: web: rollout to generation 2 aborted: the change was taken back\n",
    )  # fmt: skip
    assert live.settled(size=2) == old
    live.write(config(3000))
    second = live.begin("reload", "--wait")
    master.wait_for("worker_started", slot=2)
    reloaded(live, config(4000, now))
    assert end(second)[0] == 1
    assert [command(pid) for pid in live.settled(size=2)] == ["sleep 4000"] * 2
    assert live.pool()["generation"] == 4
    assert master.stop()[0] == 0


# -- sockets -------------------------------------------------------------------------------------------------


def test_sockets_appear_move_and_disappear(live: Live, script: Script, ports: list[int], tmp_path: Path) -> None:
    server, path = script("server", SERVER), tmp_path / "s"

    def config(**binds: object) -> str:
        sockets = ", ".join(f"{name}: {{bind: '{bind}'}}" for name, bind in binds.items())
        return f"sockets: {{{sockets}}}\npools: {{web: {{command: [{server}], sockets: [{', '.join(binds)}], {FAST}}}}}"

    one, two, three = (f"127.0.0.1:{port}" for port in ports)
    master = live.start(config(a=one))
    live.settled(size=1)
    assert told(ports[0]) == "a"
    reloaded(live, config(a=one, b=two, c=f"unix:{path}"))
    assert [told(ports[0]), told(ports[1])] == ["a", "b"]
    assert path.is_socket()
    reloaded(live, config(a=three, b=two))
    assert [told(ports[2]), told(ports[1])] == ["a", "b"]
    with pytest.raises(ConnectionRefusedError):
        told(ports[0])
    assert not path.exists()
    assert list(live.status()["sockets"]) == ["a", "b"]
    reloaded(live, config(b=two))
    assert told(ports[1]) == "b"
    with pytest.raises(ConnectionRefusedError):
        told(ports[2])
    assert master.stop()[0] == 0


def test_a_socket_stays_as_long_as_an_old_generation_needs_it(live: Live, script: Script, ports: list[int]) -> None:
    server = script("server", SERVER)

    def config(port: int, program: str) -> str:
        return f"""
        sockets: {{a: {{bind: "127.0.0.1:{port}"}}}}
        pools: {{web: {{command: {program}, sockets: [a], {FAST}}}}}
        """

    master = live.start(config(ports[0], f"[{server}]"))
    old = live.settled(size=1)
    live.write(config(ports[1], "[sh, -c, exit 1]"))
    assert live.run("reload", "--wait")[0] == 1
    os.kill(old[0], signal.SIGKILL)
    master.wait_for("worker_exited", pid=old[0])
    assert told(ports[0]) == "a", "the last good generation, on the socket that it had"
    reloaded(live, config(ports[1], f"[{server}, new]"))
    assert told(ports[1]) == "a"
    with pytest.raises(ConnectionRefusedError):
        told(ports[0])
    assert master.stop()[0] == 0


def test_another_backlog_restarts_nobody(live: Live, script: Script, ports: list[int]) -> None:
    def config(backlog: int) -> str:
        return f"""
        sockets: {{a: {{bind: "127.0.0.1:{ports[0]}", backlog: {backlog}}}}}
        pools: {{web: {{command: [sleep, '1000'], sockets: [a], {FAST}}}}}
        """

    master = live.start(config(1))
    old = live.settled(size=1)
    reloaded(live, config(3))
    assert live.pids() == old
    assert live.status()["sockets"]["a"]["backlog"] == 3
    socks = [socket.create_connection(("127.0.0.1", ports[0]), timeout=10) for _ in range(4)]  # one more than it is
    for sock in socks:
        sock.close()
    assert master.stop()[0] == 0


def test_a_port_that_is_taken_rejects_all_of_it(live: Live, script: Script, ports: list[int], taken: int) -> None:
    server = script("server", SERVER)
    good = f"""
        sockets: {{a: {{bind: "127.0.0.1:{ports[0]}", backlog: 5}}}}
        pools: {{web: {{command: [{server}], sockets: [a], {FAST}}}}}
        """
    master = live.start(good)
    old = live.settled(size=1)
    errors = refused(
        live,
        f"""
        sockets:
          a: {{bind: "127.0.0.1:{ports[0]}", backlog: 6}}
          b: {{bind: "127.0.0.1:{ports[1]}"}}
          c: {{bind: "127.0.0.1:{taken}"}}
        pools: {{web: {{command: [{server}], workers: 3, sockets: [a], {FAST}}}, more: {sleep(1)}}}
        log: {{level: error}}
        """,
    )
    assert len(errors) == 1
    assert errors[0].startswith(
        f"entrypoint: cannot bind 127.0.0.1:{taken} (socket c): address already in use; pid {os.getpid()} "
    )
    assert f"entrypoint: {live.status()['config']['error']}" == errors[0]
    assert master.wait_for("reload_failed")["error"] in errors[0]
    assert live.settled(size=1) == old
    assert list(live.status()["pools"]) == ["web"]
    assert live.status()["sockets"]["a"]["backlog"] == 5
    with pytest.raises(ConnectionRefusedError):
        told(ports[1])
    assert told(ports[0]) == "a"
    reloaded(live, good)
    assert live.status()["config"]["error"] == ""
    assert master.stop()[0] == 0


# -- what cannot be used -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "bad", "place", "why"),
    [
        ("HUP", "pools: {web: [}", 2, "not YAML"),
        ("HUP", "pools:\n  web: {comand: [sleep, '1000']}", 3, "did you mean command?"),
        ("reload", "pools:\n  web: {command: [sleep, '1']}\n  web: {command: [sleep, '2']}", 4, "duplicate key"),
        ("reload", "pools: {web: {command: [sleep, '${NO_SUCH_NAME}']}}", 2, "NO_SUCH_NAME"),
    ],
)
def test_what_is_wrong_changes_nothing_and_is_said(live: Live, how: str, bad: str, place: int, why: str) -> None:
    good = f"pools: {{web: {sleep(1000)}}}"
    master = live.start(good)
    old, before = live.settled(size=1), live.status()["config"]
    live.write(bad)
    if how == "HUP":
        master.send(signal.SIGHUP)
    else:
        error = live.run("reload")[2]
        assert error.startswith("entrypoint: cannot load ")
        assert why in error
    said = master.wait_for("reload_failed")["error"]
    assert said.startswith(f"cannot load {live.file}:{place}: ")
    assert why in said
    assert why in live.status()["config"]["error"]
    assert live.status()["config"]["sha256"] == before["sha256"]
    assert live.pids() == old
    assert not master.all("rollout_started")
    reloaded(live, good)
    assert live.status()["config"]["error"] == ""
    assert live.pids() == old
    assert master.stop()[0] == 0


def test_every_error_is_said(live: Live) -> None:
    master = live.start(f"pools: {{web: {sleep(1000)}}}")
    live.settled(size=1)
    errors = refused(live, "pools: {web: {command: [], workers: many, stop: {timeout: x}}}")
    assert len(errors) == 3
    for _ in errors:
        master.wait_for("reload_failed")
    live.file.unlink()
    assert live.run("reload")[2] == f"entrypoint: cannot load {live.file}: no such file or directory\n"
    os.mkfifo(live.file)
    assert live.run("reload")[2] == f"entrypoint: cannot load {live.file}: not a regular file\n"
    assert master.stop()[0] == 0


def test_what_cannot_change_is_said_and_the_rest_takes_effect(live: Live) -> None:
    master = live.start(f"pools: {{web: {sleep(1000)}}}\nlog: {{level: info}}")
    old = live.settled(size=1)
    reloaded(
        live,
        f"""
        pools: {{web: {sleep(1000, f"workers: 2, {FAST}")}}}
        init: [{{name: again, command: [echo, again]}}]
        shutdown: {{drain_delay: 1h}}
        signals: {{HUP: ignore}}
        log: {{level: debug, format: console}}
        """,
    )
    live.settled(size=2)
    keys = {master.wait_for("reload_incomplete")["key"] for _ in range(4)}
    assert keys == {"init", "shutdown", "log.format", "signals"}
    assert old[0] in live.pids()
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 2
    assert "again" not in master.said


def test_the_log_level_changes(live: Live) -> None:
    def config(level: str) -> str:
        return f"pools: {{web: {sleep(1000)}}}\nlog: {{level: {level}}}"

    master = live.start(config("info"))
    old = live.settled(size=1)
    reloaded(live, config("error"))
    assert live.run("restart", "web", "--wait")[0] == 0
    reloaded(live, config("info"))
    master.wait_for("config_reloaded", sha256=live.status()["config"]["sha256"][:12])
    new = live.settled(size=1)
    assert new != old
    assert [e["pid"] for e in master.all("worker_started")] == old
    assert not master.all("rollout_started")
    assert not master.all("reload_incomplete")
    assert master.stop()[0] == 0


@pytest.mark.slow
def test_a_reader_that_hangs_is_given_up_and_meanwhile_nothing_waits_for_it(live: Live) -> None:
    """As on a dead network file system. It has 30 s."""
    master = live.start(f"pools: {{web: {sleep(1000)}}}")
    [pid] = live.settled(size=1)
    before = set(children(master.pid))
    live.write("pools:" + "".join(f"\n  p{number}: {sleep(1)}" for number in range(2000)))  # takes a while to read
    reload = live.begin("reload", "--wait")
    reader = poll(lambda: set(children(master.pid)) - before).pop()
    os.kill(reader, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    master.wait_for("worker_exited", pid=pid)
    [successor] = live.settled(size=1)
    _, error = reload.communicate(timeout=60)
    assert reload.returncode == 1
    assert error.strip().endswith("reading it takes longer than 30 s")
    poll(lambda: not alive(reader))
    assert live.pids() == [successor]
    reloaded(live, f"pools: {{web: {sleep(2000)}}}")
    assert live.pids() != [successor]
    assert master.stop()[0] == 0
