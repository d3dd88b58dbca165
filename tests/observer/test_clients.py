"""Slow, silent, garbled and hostile clients, and the ends of the process."""

from __future__ import annotations

import ast
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import entrypoint
from entrypoint.observer import server
from tests.observer.harness import (
    COMMAND,
    Observer,
    StartObserver,
    pool,
    read_all,
    snapshot,
    worker,
)

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def statuses(data: bytes) -> list[int]:
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def test_two_hundred_slow_clients_delay_nobody(observer: Observer) -> None:
    slow = [observer.connect(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ") for _ in range(200)]
    for _ in range(5):
        for client in slow:
            client.sendall(b"x")
        assert observer.get("/livez", timeout=10).status == 200
        assert observer.get("/metrics", timeout=10).status == 200
    for client in slow:
        client.sendall(b"\r\nConnection: close\r\n\r\n")
    assert {tuple(statuses(read_all(client))) for client in slow} == {(200,)}
    for client in slow:
        client.close()


def test_more_clients_than_there_is_room_for_push_out_those_who_dawdle(observer: Observer) -> None:
    """A client that sends a byte now and then must not keep a probe out."""
    partial = b"GET /livez HTTP/1.1\r\nX: "
    slow = [observer.connect(partial) for _ in range(server.MAX_CONNECTIONS)]
    assert observer.get("/livez", timeout=10).status == 200
    observer.process.send_signal(signal.SIGSTOP)
    slow += [observer.connect(partial) for _ in range(100)]  # that it will meet all at once
    observer.process.send_signal(signal.SIGCONT)
    assert observer.get("/livez", timeout=10).status == 200
    assert read_all(slow[0]) == b""  # the first to come has waited longest
    assert len(os.listdir(f"/proc/{observer.process.pid}/fd")) < server.MAX_CONNECTIONS + 20
    slow[-1].sendall(b"x\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert statuses(read_all(slow[-1])) == [200]
    for client in slow:
        client.close()


def test_a_probe_gets_in_while_everybody_else_is_being_answered(observer: Observer) -> None:
    gate = threading.Event()
    observer.master.answer = lambda ask: observer.master.tell(ask) if gate.wait(10) else {}
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    clients = [observer.connect(request) for _ in range(server.MAX_CONNECTIONS)]
    process = Path(f"/proc/{observer.process.pid}")
    while len(os.listdir(process / "fd")) < len(clients) or ") S " not in (process / "stat").read_text():
        pass  # until it has accepted all of them and rests, having read what they ask
    probe = observer.connect(request)
    gate.set()
    answers = [read_all(client) for client in (*clients, probe)]
    for client in (*clients, probe):
        client.close()
    assert statuses(answers[-1]) in ([200], [503])  # an answer, be it that the master took too long


def test_clients_that_do_not_read_cost_little_and_delay_nobody(observer: Observer) -> None:
    observer.master.snapshot = snapshot(web=pool(*(worker("web", slot, os.getpid()) for slot in range(1000))))
    observer.get("/metrics")
    before = resident(observer)
    deaf = [observer.connect(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", window=4096) for _ in range(200)]
    assert observer.get("/livez", timeout=10).status == 200
    for client in deaf:
        assert client.recv(15) == b"HTTP/1.1 200 OK"
    assert resident(observer) - before < 30 << 20  # and not two hundred times what is sent
    assert observer.get("/metrics", timeout=10).status == 200
    for client in deaf:
        client.close()


def resident(observer: Observer) -> int:
    return int(Path(f"/proc/{observer.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xee" * 32,
        b"\x00" * 100 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbroken\r\n\r\n",
        b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_request_is_told_so(shared: Observer, data: bytes) -> None:
    with shared.connect(data) as client:
        client.shutdown(socket.SHUT_WR)
        reply = read_all(client)
    assert statuses(reply)
    assert 400 <= statuses(reply)[0] <= 505
    assert b"cannot read the request" in reply
    assert b"Connection: close" in reply
    assert shared.get("/livez").status == 200


def test_random_bytes_hurt_nobody(shared: Observer) -> None:
    choose = random.Random(1)
    for _ in range(100):
        with shared.connect(choose.randbytes(choose.randrange(1, 300)) + b"\r\n\r\n") as client:
            client.shutdown(socket.SHUT_WR)
            read_all(client)
    assert shared.get("/livez").status == 200


@pytest.mark.parametrize("size", [20_000, 5_000_000])
def test_headers_without_end_are_refused(shared: Observer, size: int) -> None:
    with shared.connect() as client:
        client.settimeout(20)
        try:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * size)
        except OSError:
            pass  # it has hung up in the middle
        assert statuses(read_all(client)) in ([431], [])
    assert shared.get("/livez").status == 200


@pytest.mark.parametrize("size", [100, 10_000_000])
def test_a_body_is_not_wanted(shared: Observer, size: int) -> None:
    with shared.connect(f"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()) as client:
        try:
            client.sendall(b"x" * size)
        except OSError:
            pass  # it has hung up in the middle
        client.shutdown(socket.SHUT_WR)
        assert statuses(read_all(client)) in ([405 if size == 100 else 413], [])


def test_who_asks_before_sending_a_body_is_told_at_once(shared: Observer) -> None:
    head = b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    with shared.connect(head) as client:
        assert statuses(read_all(client)) == [405]


def test_pipelined_requests_are_answered_in_order(shared: Observer) -> None:
    wanted = [b"/livez", b"/none", b"/readyz", b"/status", b"/none"] * 10
    data = b"".join(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in wanted)
    with shared.connect(data + CLOSE) as client:
        assert statuses(read_all(client)) == [200, 404, 200, 200, 404] * 10 + [200]


def test_a_connection_is_kept_for_the_next_request(shared: Observer) -> None:
    with shared.connect() as client:
        for _ in range(3):
            client.sendall(LIVEZ)
            assert statuses(client.recv(4096)) == [200]


def test_a_pipelined_head_leaves_the_next_answer_in_place(shared: Observer) -> None:
    with shared.connect(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + CLOSE) as client:
        reply = read_all(client)
    assert statuses(reply) == [200, 200]
    assert b"<html" not in reply


def test_an_http_1_0_client_is_served(shared: Observer) -> None:
    with shared.connect(b"GET /livez HTTP/1.0\r\n\r\n") as client:
        assert read_all(client).endswith(b"\r\n\r\nok\n")


def test_a_client_that_has_said_all_still_gets_its_answer(shared: Observer) -> None:
    with shared.connect(LIVEZ) as client:
        client.shutdown(socket.SHUT_WR)
        assert statuses(read_all(client)) == [200]


def test_a_client_that_leaves_before_its_answer_hurts_nobody(observer: Observer) -> None:
    observer.master.silent.set()
    for _ in range(20):
        observer.connect(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").close()
    observer.get("/status")
    observer.master.silent.clear()
    assert observer.get("/livez").status == 200


def test_a_thousand_short_connections(observer: Observer) -> None:
    for _ in range(1000):
        observer.connect(CLOSE).close()
    assert observer.get("/livez").status == 200
    deadline = time.monotonic() + 10
    while len(os.listdir(f"/proc/{observer.process.pid}/fd")) > 30:  # it has not seen all of them close
        assert time.monotonic() < deadline


def test_a_bug_in_one_answer_is_said_and_leaves_the_others(observer: Observer) -> None:
    whole = observer.master.snapshot
    observer.master.snapshot = {**whole, "config": None}
    reply = observer.get("/metrics")
    assert (reply.status, reply.text) == (500, "internal error\n")
    assert "entrypoint observer: cannot answer '/metrics': TypeError" in observer.story()
    observer.errors.truncate(0)
    observer.master.snapshot = whole
    assert observer.get("/metrics").status == 200


def test_it_ends_with_its_channel(start: StartObserver) -> None:
    observer = start()
    client = observer.connect(b"GET / HT")
    assert observer.get("/livez").status == 200
    observer.master.hang_up()
    assert observer.process.wait(10) == 0
    assert read_all(client) == b""
    client.close()


def test_it_ends_with_its_channel_while_a_request_waits(start: StartObserver) -> None:
    observer = start()
    assert observer.get("/livez").status == 200
    observer.master.silent.set()
    with observer.connect(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"):
        observer.master.hang_up()
        assert observer.process.wait(10) == 0


def test_a_term_ends_it_and_keys_do_not(start: StartObserver) -> None:
    observer = start()
    observer.get("/livez")
    for number in (signal.SIGINT, signal.SIGQUIT):
        observer.process.send_signal(number)
    assert observer.get("/livez").status == 200
    observer.process.send_signal(signal.SIGTERM)
    assert observer.process.wait(10) == -signal.SIGTERM
    observer.master.hang_up()


def test_a_killed_observer_loses_nobody_who_waits_to_be_accepted(start: StartObserver) -> None:
    observer = start()
    assert observer.get("/livez").status == 200
    observer.process.kill()
    observer.process.wait()
    observer.master.hang_up()
    waiting = [observer.connect(CLOSE) for _ in range(50)]  # the master holds the socket
    observer.start()
    for client in waiting:
        assert statuses(read_all(client)) == [200]
        client.close()


def test_without_a_listening_socket_it_says_so() -> None:
    ours, theirs = socket.socketpair()
    code = f"import os; os.dup2({theirs.fileno()}, 3); os.closerange(4, 64)\n"
    code += f"os.execv({sys.executable!r}, [{sys.executable!r}, '-I', '-S', {COMMAND!r}, 'observer'])"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, pass_fds=[theirs.fileno()], capture_output=True, check=False, timeout=30)
    ours.close()
    theirs.close()
    assert done.returncode == 1
    assert done.stderr == b"entrypoint observer: cannot serve: descriptor 4 is no listening socket\n"


def test_it_takes_little_memory(observer: Observer) -> None:
    for path in ("/", "/metrics", "/status", "/livez"):
        assert observer.get(path, Accept_Encoding="gzip").status == 200
    lines = Path(f"/proc/{observer.process.pid}/smaps_rollup").read_text().splitlines()
    (proportional,) = (int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    assert proportional < 20_000  # kB


def test_an_idle_observer_sleeps(observer: Observer) -> None:
    def pauses() -> int:
        text = Path(f"/proc/{observer.process.pid}/status").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith("voluntary_ctxt_switches"))
        return int(line.split()[1])

    observer.get("/metrics")
    slept: list[int] = []
    while 0 not in slept and len(slept) < 10:  # on a busy machine it may take a while to be done with the request
        before = pauses()
        with pytest.raises(subprocess.TimeoutExpired):
            observer.process.wait(1.5)
        slept.append(pauses() - before)
    assert slept[-1] == 0, slept


def test_it_imports_nothing_of_the_master() -> None:
    folder = Path(entrypoint.__file__).parent / "observer"
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            ours = [name for name in names if name.startswith("entrypoint")]
            allowed = ("entrypoint.observer", "entrypoint.linux", "entrypoint.reasons")
            assert all(name.startswith(allowed) for name in ours), (path, ours)
