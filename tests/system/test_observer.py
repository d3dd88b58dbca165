"""What a master serves over HTTP while it lives, hangs, stops and loses the process that serves it."""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import socket
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import children, poll, status_of
from tests.system.live import Live
from tests.system.observed import OBSERVER, Observed, is_observer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Master, Start

WEB = OBSERVER + "pools: {web: {command: [sleep, '1000'], workers: 2, ready: {after: 30ms}}}\n"
ROUTES = ("/livez", "/readyz", "/readyz?verbose", "/startupz", "/metrics", "/status")


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:
    return Live(start, entrypoint, tmp_path)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A pipe: who reads it waits for somebody to write."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def listening(master: Master) -> set[str]:
    """The listening TCP sockets that a master or a process of its holds, as lines of /proc/net/tcp."""
    held = set()
    for pid in (master.pid, *master.children()):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                held.add(os.readlink(entry))
            except OSError:
                continue
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {line for line in lines if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in held}


def test_every_path_answers(live: Live) -> None:
    master = live.start(WEB)
    seen = Observed(master)
    master.wait_for("pool_ready")
    assert seen.get("/livez") == (200, "ok\n")
    assert seen.get("/readyz") == (200, "ok\n")
    assert seen.get("/readyz?verbose") == (200, "[+] web: 2 of 2 ready, 1 needed\nok\n")
    assert seen.get("/startupz") == (200, "ok\n")
    assert seen.get("/nowhere").status == 404
    assert "<table" in seen.get("/").text
    assert "entrypoint_pool_workers_desired" in seen.get("/metrics").text
    shown, told = seen.status(), live.status()
    assert told.keys() <= shown.keys()
    assert shown["pid"] == master.pid
    for one, other in zip(shown["pools"]["web"]["workers"], told["pools"]["web"]["workers"], strict=True):
        assert other.keys() <= one.keys()
        assert one["pid"] == other["pid"]
        assert one["resident_memory_bytes"] > 0
    assert master.stop()[0] == 0


def test_an_observer_that_is_killed_refuses_nobody(start: Start) -> None:
    master = start(WEB)
    seen = Observed(master)
    seen.until("/readyz", 200)
    over = threading.Event()
    refused: list[str] = []
    answered = [0]

    def hammer() -> None:
        while not over.is_set():
            try:
                assert seen.get("/livez", timeout=20).status == 200
                answered[0] += 1
            except ConnectionRefusedError as error:
                refused.append(repr(error))
            except OSError:  # the one whose request the killed observer had in its hands
                pass

    def more_than(count: int) -> bool:
        return answered[0] > count

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        pid = seen.process()
        for _ in range(5):
            before = answered[0]
            os.kill(pid, signal.SIGKILL)
            with seen.connect(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n") as waiting:  # there may be nobody just now
                waiting.settimeout(20)
                assert waiting.recv(4096).startswith(b"HTTP/1.1 200 ")
            pid = seen.process(other_than=pid)
            poll(partial(more_than, before))
    finally:
        over.set()
        thread.join()
    assert not refused
    assert not master.all("worker_exited", pool="web")
    assert master.stop()[0] == 0


def test_a_master_that_does_not_answer_is_reported_at_once_and_so_is_its_return(start: Start) -> None:
    master = start(WEB)
    seen = Observed(master)
    seen.until("/readyz", 200)
    seen.scrape()
    master.send(signal.SIGSTOP)
    try:
        for path in ROUTES:
            began = time.monotonic()
            status, text = seen.get(path)
            assert (status, text) == (503, "cannot ask the master: no answer within 1 s\n"), path
            assert time.monotonic() - began < 3  # that, and what a busy machine adds
        assert seen.get("/").status == 200  # the page says so itself
    finally:
        master.send(signal.SIGCONT)
    for path in ROUTES:
        seen.until(path, 200)
    assert master.stop()[0] == 0


def test_readyz_says_no_from_the_first_term_on_while_all_else_goes_on(start: Start) -> None:
    master = start(WEB + "shutdown: {drain_delay: 60s}\n")
    seen = Observed(master)
    seen.until("/readyz", 200)
    master.send(signal.SIGTERM)
    master.wait_for("shutdown")
    assert seen.get("/readyz") == (503, "stopping\n")
    assert seen.get("/livez").status == 200
    assert seen.get("/startupz").status == 200
    assert seen.status()["phase"] == "draining"
    assert seen.value("master_draining") == 1
    assert seen.value("signals_received_total", signal="TERM") == 1
    os.kill(seen.status()["pools"]["web"]["workers"][0]["pid"], signal.SIGKILL)
    seen.wait_for(2, "pool_workers", pool="web", state="ready")
    seen.wait_for(1, "worker_restarts_total", pool="web", reason="signal")
    os.kill(pid := seen.process(), signal.SIGKILL)  # it is replaced now as ever
    assert seen.process(other_than=pid)
    assert seen.get("/readyz").status == 503
    master.send(signal.SIGINT)  # ends the delay
    assert master.wait() == 0


def test_the_observer_goes_when_all_workers_have_gone(start: Start, gate: Path) -> None:
    deaf = f'trap "cat {gate}; exit" TERM; echo up; while :; do sleep 0.02; done'
    master = start(OBSERVER + f"pools: {{web: {{command: [sh, -c, {json.dumps(deaf)}]}}}}\n")
    seen = Observed(master)
    master.wait_for_line("up")
    master.send(signal.SIGTERM)
    master.wait_for("worker_stopping")
    assert seen.value("pool_workers", pool="web", state="draining") == 1
    assert seen.get("/livez").status == 200
    gate.write_text("")
    assert master.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        seen.connect()


def test_startupz_is_for_the_start_and_readyz_for_ever(start: Start, tmp_path: Path) -> None:
    good = tmp_path / "good"
    probe = f"ready: {{exec: [test, -e, {good}], period: 100ms, timeout: 10s}}, restart: {{min_uptime: 0s}}"
    master = start(OBSERVER + f"pools: {{web: {{command: [sleep, '1000'], {probe}}}}}\n")
    seen = Observed(master)
    assert seen.get("/startupz") == (503, "not all ready yet: web\n")
    assert seen.get("/readyz") == (503, "web: 0 of 1 ready\n")
    assert seen.get("/livez").status == 200
    good.touch()
    seen.until("/startupz", 200)
    assert seen.get("/readyz").status == 200
    good.unlink()
    os.kill(seen.status()["pools"]["web"]["workers"][0]["pid"], signal.SIGKILL)
    assert seen.until("/readyz", 503) == "web: 0 of 1 ready\n"
    assert seen.get("/startupz").status == 200
    assert master.stop()[0] == 0


def test_it_is_there_before_the_init_commands_are_done(start: Start, gate: Path) -> None:
    init = f"init: [{{name: migrate, command: [cat, {gate}]}}]\n"
    master = start(init + WEB)
    seen = Observed(master)
    assert seen.get("/livez").status == 200
    assert seen.get("/readyz") == (503, "init:migrate is running\n")
    assert seen.get("/startupz").status == 503
    assert seen.value("pool_workers_desired", pool="web") == 2
    gate.write_text("")
    seen.until("/readyz", 200)
    assert master.stop()[0] == 0


def test_a_port_that_is_taken_ends_the_start_with_its_holder_named(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        master = start(f"observer: {{bind: '127.0.0.1:{port}'}}\npools: {{web: {{command: [sleep, '1000']}}}}\n")
        assert master.wait() == 1
    assert re.search(rf"cannot bind 127\.0\.0\.1:{port} .*observer.* pid {os.getpid()}\b", master.errors)
    assert not master.events


def test_a_reload_that_fails_shows(live: Live) -> None:
    master = live.start(WEB)
    seen = Observed(master)
    seen.until("/readyz", 200)
    first = seen.scrape()
    assert seen.value("config_last_reload_successful") == 1
    live.write(WEB.replace("workers: 2", "workers: two"))
    assert live.run("reload")[0] == 1
    bad = seen.scrape()
    same = [key for key in first if key[0] in ("config_info", "config_last_reload_success_timestamp_seconds")]
    assert len(same) == 2
    assert [bad[key] for key in same] == [first[key] for key in same]
    assert seen.value("config_last_reload_successful") == 0
    assert "workers" in seen.status()["config"]["error"]
    live.write(WEB.replace("workers: 2", "workers: 3"))
    assert live.run("reload", "--wait")[0] == 0
    assert seen.value("config_last_reload_successful") == 1
    good = seen.scrape()
    info, changed = same if same[0][0] == "config_info" else same[::-1]
    assert info not in good
    assert good[changed] > first[changed]
    assert master.stop()[0] == 0


@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_clients_who_say_nothing_delay_no_stop_and_no_probe(start: Start) -> None:
    master = start(WEB)
    seen = Observed(master)
    seen.until("/readyz", 200)
    clients = [seen.connect(b"" if number % 2 else b"GET /metrics HTTP/1.1\r\nHost:") for number in range(1000)]
    try:
        assert seen.get("/livez").status == 200
        assert seen.get("/metrics").status == 200
        code, seconds = master.stop()
    finally:
        for client in clients:
            client.close()
    assert code == 0
    assert seconds < 2


@pytest.mark.parametrize("pid1", [True, False])
def test_a_storm_of_orphans_keeps_nobody_waiting(start: Start, *, pid1: bool) -> None:
    storm = "{command: [sh, -c, 'while :; do (true &); done'], workers: 2, ready: {after: 0s}}"
    master = start(OBSERVER + f"pools: {{storm: {storm}}}\n", pid1=pid1)
    seen = Observed(master)
    seen.until("/readyz", 200)
    before = seen.scrape()["orphans_reaped_total", frozenset()]
    for _ in range(10):
        for path in ROUTES:
            began = time.monotonic()
            assert seen.get(path).status == 200
            assert time.monotonic() - began < 5
    assert seen.scrape()["orphans_reaped_total", frozenset()] > before + 100
    assert master.stop()[0] == 0


def test_without_an_observer_nothing_listens(start: Start) -> None:
    master = start(WEB)
    Observed(master)
    assert len(listening(master)) == 1  # so that the next line would see one
    assert master.stop()[0] == 0
    master = start("observer: {enabled: false}\n" + WEB.removeprefix(OBSERVER))
    master.wait_for("pool_ready")
    assert not listening(master)
    assert not any(is_observer(pid) for pid in children(master.pid))
    assert master.stop()[0] == 0


def test_nobody_wakes_when_nobody_asks(start: Start) -> None:
    """Neither the master nor its observer."""
    master = start(WEB)
    seen = Observed(master)
    seen.until("/readyz", 200)
    master.wait_for("pool_ready")
    pids = (master.pid, seen.process())

    def switches() -> list[str]:
        return [status_of(pid, "voluntary_ctxt_switches") for pid in pids]

    def rests() -> bool:
        """Whether a second passes without a single wake-up."""
        before = switches()
        select.select([master.out], [], [], 1)
        return switches() == before

    poll(rests, timeout=15)
    assert master.stop()[0] == 0
