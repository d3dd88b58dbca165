"""The control socket's server, and what clients of every kind may do to it."""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.control.conftest import Loop

PING = b'{"ask":"ping"}\n'
PONG = {"ok": True, "phase": "running"}
BIG = {"ok": True, "text": "x" * 700_000}


def clients(loop: Loop) -> int:
    return len(loop.control._clients)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# -- requests and answers ------------------------------------------------------------------------------------


def test_a_request_is_handled_answered_and_the_connection_closed(loop: Loop) -> None:
    assert loop.ask(PING) == [PONG]
    assert [request for _, request in loop.requests] == [{"ask": "ping"}]
    assert clients(loop) == 0


@pytest.mark.parametrize(
    "request_",
    [
        {"ask": "status"},
        {"ask": "ready"},
        {"ask": "startup"},
        {"ask": "scale", "pool": "web", "count": 0},
        {"ask": "scale", "pool": "web", "count": None},
        {"ask": "restart", "pool": None, "wait": True},
        {"ask": "restart", "pool": "web", "wait": False},
        {"ask": "reload", "wait": False},
        {"ask": "start", "pool": "web"},
        {"ask": "stop", "pool": "web"},
        {"ask": "signal", "pool": "web", "slot": 0, "signal": 15},
        {"ask": "signal", "pool": "web", "slot": None, "signal": 1},
    ],
)
def test_every_kind_of_request_is_passed_on_as_it_is(loop: Loop, request_: dict[str, Any]) -> None:
    assert loop.ask(json.dumps(request_).encode() + b"\n") == [{"ok": True}]
    assert loop.requests[-1][1] == request_


def test_a_request_may_come_byte_by_byte(loop: Loop) -> None:
    with loop.connect() as peer:
        for byte in PING:
            peer.send(bytes([byte]))
            loop.settle()
        assert peer.rest() == [PONG]


def test_a_client_may_shut_its_side_instead_of_ending_the_line(loop: Loop) -> None:
    with loop.connect() as peer:
        peer.send(PING.strip())
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.rest() == [PONG]


def test_a_big_answer_comes_whole_to_a_slow_reader(loop: Loop) -> None:
    loop.replies["ping"] = {"text": "x" * 3_000_000}
    with loop.connect() as peer:
        peer.send(PING)
        loop.settle()
        assert clients(loop) == 1
        assert len(peer.rest()[0]["text"]) == 3_000_000
    assert loop.control._pending == 0


def test_an_answer_in_two_lines(loop: Loop) -> None:
    loop.handle = lambda asker, _: loop.control.answer(asker, {"ok": True, "rollouts": []}, last=False)
    with loop.connect() as peer:
        peer.send(b'{"ask":"reload","wait":true}\n')
        assert peer.line() == {"ok": True, "rollouts": []}
        assert loop.control.deadline == float("inf"), "who waits has all the time"
        loop.control.answer(loop.requests[0][0], {"done": True, "results": []})
        assert peer.rest() == [{"done": True, "results": []}]
    assert clients(loop) == 0


def test_two_lines_that_do_not_fit_into_the_connection(loop: Loop) -> None:
    def handle(asker: int, _: object) -> None:
        loop.control.answer(asker, BIG, last=False)
        loop.control.answer(asker, {"done": True})
        loop.control.answer(asker, {"done": "twice"})

    loop.handle = handle
    assert loop.ask(PING) == [BIG, {"done": True}]


def test_an_answer_to_somebody_who_has_gone_is_ignored(loop: Loop) -> None:
    loop.handle = lambda *_: None
    with loop.connect() as peer:
        peer.send(PING)
        loop.until(lambda: loop.requests)
    loop.until(lambda: clients(loop) == 0)
    loop.control.answer(loop.requests[0][0], PONG)
    loop.control.answer(12345, PONG)


def test_a_waiting_client_that_hangs_up_is_forgotten_and_one_that_only_shut_its_side_is_not(loop: Loop) -> None:
    loop.handle = lambda *_: None
    with loop.connect() as half, loop.connect() as gone:
        half.send(PING)
        half.sock.shutdown(socket.SHUT_WR)
        gone.send(PING)
        loop.until(lambda: len(loop.requests) == 2)
        assert loop.control.deadline == float("inf")
        gone.sock.close()
        loop.until(lambda: clients(loop) == 1)
        loop.settle()
        for asker, _ in loop.requests:
            loop.control.answer(asker, PONG)
        assert half.rest() == [PONG]


def test_a_bug_in_the_master_is_answered_and_not_hidden(loop: Loop) -> None:
    def handle(*_: object) -> None:
        raise KeyError("surprise")

    loop.handle = handle
    with loop.connect() as peer:
        peer.send(PING)
        with pytest.raises(KeyError):
            loop.settle()
        assert peer.rest() == [{"ok": False, "error": "cannot ping: internal error"}]
    assert clients(loop) == 0


# -- hostile and broken clients ------------------------------------------------------------------------------

NOT_JSON = "cannot read the request: not a line of JSON"
TOO_LONG = "cannot read the request: longer than 4096 bytes"
NO_ASK = "cannot read the request: it must be an object, with `ask` one of status, scale, restart, "


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"hello\n", NOT_JSON),
        (b"\x00\xff\xfe\x80\n", NOT_JSON),
        (b'{"ask":"p\xffng"}\n', NOT_JSON),
        (b"[" * 4096 + b"\n", NOT_JSON),
        (b'{"a":' * 800 + b"\n", NOT_JSON),
        (b"GET / HTTP/1.1\r\n", NOT_JSON),
        (b"x" * 4097, TOO_LONG),
        (b" " * 4096 + PING, TOO_LONG),
        (b"y" * 1_000_000, TOO_LONG),
        (PING + PING, "cannot read the request: more than one line"),
        (b"[]\n", NO_ASK),
        (b'"ping"\n', NO_ASK),
        (b"null\n", NO_ASK),
        (b"{}\n", NO_ASK),
        (b'{"ask":["ping"]}\n', NO_ASK),
        (b'{"ask":"shutdown"}\n', NO_ASK),
        (b'{"ask":"ping","x\\u001b":1}\n', r"cannot ping: unknown key 'x\x1b'"),
        (b'{"ask":"stop"}\n', "cannot stop: pool is missing"),
        (b'{"ask":"stop","pool":null}\n', "cannot stop: pool is not valid"),
        (b'{"ask":"stop","pool":""}\n', "cannot stop: pool is not valid"),
        (b'{"ask":"stop","pool":"' + b"w" * 64 + b'"}\n', "cannot stop: pool is not valid"),
        (b'{"ask":"scale","pool":"web","count":-1}\n', "cannot scale: count is not valid"),
        (b'{"ask":"scale","pool":"web","count":10001}\n', "cannot scale: count is not valid"),
        (b'{"ask":"scale","pool":"web","count":true}\n', "cannot scale: count is not valid"),
        (b'{"ask":"scale","pool":"web","count":1.0}\n', "cannot scale: count is not valid"),
        (b'{"ask":"scale","pool":"web","count":NaN}\n', "cannot scale: count is not valid"),
        (b'{"ask":"scale","pool":"web","count":' + b"9" * 4000 + b"}\n", "cannot scale: count is not valid"),
        (b'{"ask":"reload","wait":1}\n', "cannot reload: wait is not valid"),
        (b'{"ask":"signal","pool":"web","slot":0,"signal":0}\n', "cannot signal: signal is not valid"),
        (b'{"ask":"signal","pool":"web","slot":0,"signal":65}\n', "cannot signal: signal is not valid"),
        (b'{"ask":"signal","pool":"web","slot":-1,"signal":9}\n', "cannot signal: slot is not valid"),
    ],
)
def test_what_is_no_request_is_refused_with_one_line(loop: Loop, line: bytes, error: str) -> None:
    answers = loop.ask(line)
    assert len(answers) == 1
    assert answers[0]["ok"] is False
    assert answers[0]["error"].startswith(error)
    assert not loop.requests
    assert clients(loop) == 0


def test_the_longest_request_that_may_be(loop: Loop) -> None:
    assert loop.ask(PING.strip() + b" " * (4096 - len(PING.strip())) + b"\n") == [PONG]


def test_random_bytes(loop: Loop) -> None:
    dice = random.Random(1)
    for _ in range(300):
        data = dice.randbytes(dice.randrange(1, 5000))
        with loop.connect() as peer:
            peer.send(data)
            peer.sock.shutdown(socket.SHUT_WR)
            assert all(answer["ok"] is False for answer in peer.rest())
    assert not loop.requests
    assert loop.ask(PING) == [PONG]


def test_half_a_line_and_the_end(loop: Loop) -> None:
    with loop.connect() as peer:
        peer.send(b'{"ask":')
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.rest() == [{"ok": False, "error": NOT_JSON}]


def test_half_a_line_and_silence(loop: Loop) -> None:
    with loop.connect() as peer:
        began = time.monotonic()
        peer.send(b'{"ask":')
        loop.until(lambda: clients(loop))
        assert began + 5 <= loop.control.deadline <= time.monotonic() + 5
        loop.control.due(began + 4.9)
        assert clients(loop) == 1
        assert loop.control.due(time.monotonic() + 5) == float("inf")
        assert peer.rest() == [{"ok": False, "error": "cannot read the request: not complete within 5 s"}]


def test_an_answer_that_is_never_read(loop: Loop) -> None:
    loop.replies["status"] = BIG
    with loop.connect() as lazy:
        lazy.send(b'{"ask":"status"}\n')
        loop.until(lambda: loop.requests)
        assert loop.turn(0.05) == 0, "it must not keep the loop busy"
        assert loop.ask(PING) == [PONG]
        assert loop.control.deadline <= time.monotonic() + 5
        loop.control.due(time.monotonic() + 5)
        assert clients(loop) == 0
    assert loop.control._pending == 0


def test_progress_gives_more_time(loop: Loop) -> None:
    loop.replies["ping"] = {"text": "x" * 3_000_000}
    with loop.connect() as slow:
        slow.send(PING)
        loop.until(lambda: loop.requests)
        loop.settle()
        before = loop.control.deadline
        slow.sock.recv(300_000)
        loop.until(lambda: loop.control.deadline > before)
        assert clients(loop) == 1
        assert loop.control.deadline <= time.monotonic() + 5


def test_answers_that_are_not_read_take_little_memory_all_together(loop: Loop) -> None:
    loop.replies["status"] = BIG
    peers = [loop.connect() for _ in range(40)]
    for peer in peers:
        peer.send(b'{"ask":"status"}\n')
    loop.until(lambda: len(loop.requests) == 40)
    loop.settle()
    assert sum(len(c.rest) for c in loop.control._clients.values()) == loop.control._pending <= 1 << 20
    assert loop.ask(PING) == [PONG]
    assert peers[0].rest() == [BIG], "who came first is served all the same"
    for peer in peers:
        peer.sock.close()
    loop.until(lambda: clients(loop) == 0)
    assert loop.control._pending == 0


def test_a_thousand_connections(loop: Loop) -> None:
    socks = []
    refused = 0
    for _ in range(1000):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        socks.append(sock)
        try:
            sock.connect(loop.control.path)
        except BlockingIOError:
            refused += 1
        loop.turn()
        assert clients(loop) <= 64
    assert clients(loop) == 64
    assert refused > 0
    assert loop.turn(0.05) == 0, "the listener must not keep the loop busy"
    for sock in socks:
        sock.close()
    loop.until(lambda: loop.turn() == 0 and clients(loop) == 0)
    assert loop.ask(PING) == [PONG]


def test_one_that_leaves_makes_room_for_one_that_waits(loop: Loop) -> None:
    peers = [loop.connect() for _ in range(64)]
    loop.until(lambda: clients(loop) == 64)
    with loop.connect() as late:
        late.send(PING)
        loop.settle()
        assert not loop.requests
        peers.pop().sock.close()
        assert late.rest() == [PONG]
    for peer in peers:
        peer.sock.close()


def test_a_storm_of_connections_that_are_closed_at_once(loop: Loop) -> None:
    gc.collect()  # what earlier tests left
    before = descriptors()
    for number in range(2000):
        with loop.connect():
            pass
        if number % 16 == 0:
            loop.turn()
    loop.until(lambda: clients(loop) == 0 and loop.turn() == 0)
    assert descriptors() == before
    assert loop.ask(PING) == [PONG]


def test_a_turn_accepts_sixteen_and_no_more(loop: Loop) -> None:
    peers = [loop.connect() for _ in range(40)]
    loop.turn()
    assert clients(loop) == 16
    for peer in peers:
        peer.sock.close()


def test_no_descriptor_is_left_for_a_client(loop: Loop) -> None:
    with loop.connect() as peer:
        peer.send(PING)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0), limits[1]))  # the lowest free number
        try:
            loop.turn()
            assert loop.turn(0.05) == 0, "the listener must not keep the loop busy"
            assert loop.control.deadline <= time.monotonic() + 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        loop.control.due(time.monotonic() + 1)
        assert peer.rest() == [PONG]


def test_process_1_imports_nothing_heavy_for_it() -> None:
    code = "import entrypoint.master.control.server, sys; print(*sys.modules)"
    bare = "import entrypoint.core.model, os, stat, sys; print(*sys.modules)"
    path = os.pathsep.join(sys.path)
    lists = [
        set(subprocess.check_output([sys.executable, "-S", "-c", c], env={"PYTHONPATH": path}, text=True).split())
        for c in (code, bare)
    ]
    assert lists[0] - lists[1] <= {
        "entrypoint.master",
        "entrypoint.config",
        "entrypoint.linux",
        "entrypoint.master.control",
        "entrypoint.master.control.server",
        "entrypoint.linux.stale",
        "entrypoint.config.control",
        "_socket",
        "select",
        "errno",
    }
