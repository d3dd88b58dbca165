"""The commands that ask something of a master, against a real server with canned answers."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.cli import client
from tests.control.conftest import NOBODY, Loop, Request

if TYPE_CHECKING:
    from pathlib import Path

BEGUN = [{"pool": "web", "generation": 3}, {"pool": "jobs", "generation": 2}]


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ("scale web 8", {"ask": "scale", "pool": "web", "count": 8}),
        ("scale web 0", {"ask": "scale", "pool": "web", "count": 0}),
        ("scale web reset", {"ask": "scale", "pool": "web", "count": None}),
        ("start web", {"ask": "start", "pool": "web"}),
        ("stop web", {"ask": "stop", "pool": "web"}),
        ("signal web USR1", {"ask": "signal", "pool": "web", "slot": None, "signal": 10}),
        ("signal web/2 sigterm", {"ask": "signal", "pool": "web", "slot": 2, "signal": 15}),
        ("signal web/0 9", {"ask": "signal", "pool": "web", "slot": 0, "signal": 9}),
    ],
)
def test_an_order_is_sent_and_nothing_is_said(loop: Loop, entrypoint: str, words: str, request_: Request) -> None:
    ran = loop.run(entrypoint, *words.split(), "--socket", loop.control.path)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert [request for _, request in loop.requests] == [request_]


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ("restart web", {"ask": "restart", "pool": "web", "wait": False}),
        ("restart --all", {"ask": "restart", "pool": None, "wait": False}),
        ("reload", {"ask": "reload", "wait": False}),
    ],
)
def test_a_rollout_is_begun(loop: Loop, entrypoint: str, words: str, request_: Request) -> None:
    loop.replies = {ask: {"ok": True, "rollouts": BEGUN} for ask in ("restart", "reload")}
    ran = loop.run(entrypoint, *words.split(), "--socket", loop.control.path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "web: rollout to generation 3 has begun\njobs: rollout to generation 2 has begun\n"
    assert [request for _, request in loop.requests] == [request_]


@pytest.mark.parametrize("wait", [[], ["--wait"]])
def test_a_reload_that_replaces_nothing(loop: Loop, entrypoint: str, wait: list[str]) -> None:
    loop.handle = lambda asker, _: loop.control.answer(asker, {"ok": True, "rollouts": []}, last=not wait)
    ran = loop.run(entrypoint, "reload", *wait, "--socket", loop.control.path)
    assert (ran.code, ran.out, ran.err) == (0, "nothing to replace\n", "")


@pytest.mark.parametrize(
    ("second", "end"),
    [
        ({"result": "completed", "reason": ""}, (0, "")),
        ({"result": "failed", "reason": "jobs/1 ended\x1b[31m"}, (1, "failed: jobs/1 ended?[31m")),
        ({"result": "aborted", "reason": ""}, (1, "aborted")),
    ],
)
@pytest.mark.parametrize("words", [["reload"], ["restart", "--all"]])
def test_waiting_for_the_end_of_rollouts(
    loop: Loop, entrypoint: str, words: list[str], second: dict[str, str], end: tuple[int, str]
) -> None:
    code, said = end
    loop.handle = lambda asker, _: loop.control.answer(asker, {"ok": True, "rollouts": BEGUN}, last=False)
    running = loop.start(entrypoint, *words, "--wait", "--socket", loop.control.path)
    loop.until(lambda: running.out.count("has begun\n") == 2)
    assert running.process.poll() is None
    results = [{**BEGUN[0], "result": "completed", "reason": ""}, {**BEGUN[1], **second}]
    loop.control.answer(loop.requests[0][0], {"done": True, "results": results})
    assert running.wait() == code
    completed = "".join(f"{n} completed\n" for n in ["web: rollout to generation 3", "jobs: rollout to generation 2"])
    lines = completed if code == 0 else "web: rollout to generation 3 completed\n"
    assert running.out.partition("jobs: rollout to generation 2 has begun\n")[2] == lines
    assert running.err == (f"entrypoint: jobs: rollout to generation 2 {said}\n" if said else "")


def test_the_master_goes_away_while_somebody_waits(loop: Loop, entrypoint: str) -> None:
    loop.handle = lambda asker, _: loop.control.answer(asker, {"ok": True, "rollouts": BEGUN}, last=False)
    running = loop.start(entrypoint, "reload", "--wait", "--socket", loop.control.path)
    loop.until(lambda: running.out.count("has begun\n") == 2)
    loop.control.close()
    assert running.wait() == 1
    assert running.err == "entrypoint: cannot wait for the end of the reload: the master went away\n"


def test_ctrl_c_ends_a_wait(loop: Loop, entrypoint: str) -> None:
    loop.handle = lambda asker, _: loop.control.answer(asker, {"ok": True, "rollouts": BEGUN}, last=False)
    running = loop.start(entrypoint, "restart", "web", "--wait", "--socket", loop.control.path)
    loop.until(lambda: running.out.count("has begun\n") == 2)
    running.process.send_signal(signal.SIGINT)
    assert (running.wait(), running.err) == (130, "")
    loop.until(lambda: not loop.control._clients)


def test_a_refusal_is_said_line_by_line_without_what_a_terminal_would_obey(loop: Loop, entrypoint: str) -> None:
    error = "cannot load c.yaml:2: pools.web.x: unknown key\ncannot load c.yaml:3: \x1b]0;title\x07\u202e bad"
    loop.replies["reload"] = {"ok": False, "error": error}
    ran = loop.run(entrypoint, "reload", "--wait", "--socket", loop.control.path)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "entrypoint: cannot load c.yaml:2: pools.web.x: unknown key\n"
        "entrypoint: cannot load c.yaml:3: ?]0;title?? bad\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        "scale",
        "scale web",
        "scale web many",
        "scale web -1",
        "scale web 10001",
        "scale web 08",
        "restart",
        "restart web --all",
        "reload web",
        "start",
        "stop a b",
        "signal web",
        "signal web/x TERM",
        "signal /2 TERM",
        "signal web/ TERM",
        "signal web NOPE",
        "signal web 65",
        "status a b",
        "status --colour",
        "probe",
        "probe dead",
        "probe live now",
        "status --socket",
    ],
)
def test_wrong_usage(loop: Loop, entrypoint: str, words: str) -> None:
    ran = loop.run(entrypoint, *words.split())
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith(f"entrypoint: cannot {words.split(maxsplit=1)[0]}: ")
    assert "usage: entrypoint " in ran.err


def test_every_command_has_help(loop: Loop, entrypoint: str) -> None:
    names = ["status", "scale", "restart", "reload", "start", "stop", "signal", "probe"]
    usage = loop.run(entrypoint, "help").out
    for name in names:
        assert f"entrypoint {name}" in usage
        ran = loop.run(entrypoint, name, "--help")
        assert (ran.code, ran.err) == (0, "")
        assert f"usage: entrypoint {name}" in ran.out
    assert "monitor" not in usage


# -- reaching the master -------------------------------------------------------------------------------------


def test_there_is_no_socket_where_it_was_said_to_be(loop: Loop, entrypoint: str) -> None:
    ran = loop.run(entrypoint, "stop", "web", "--socket", "/no/such.sock")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "entrypoint: cannot reach the master: /no/such.sock: no such file or directory\n"


def places(monkeypatch: pytest.MonkeyPatch, *paths: object) -> None:
    monkeypatch.setattr(client, "find_control", lambda *_: [str(path) for path in paths])


def test_there_is_no_socket_in_any_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places(monkeypatch, folder / "a/control.sock", folder / "b/control.sock")
    with pytest.raises(client.NoSocketError) as caught:
        client.ask("", {"ask": "ping"})
    assert str(caught.value) == f"cannot reach the master: no control socket in {folder}/a, {folder}/b"


def test_the_first_place_where_somebody_accepts(loop: Loop, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "dead.sock"))
    places(monkeypatch, folder / "none.sock", folder / "dead.sock", loop.control.path)
    client.Connection("").close()
    places(monkeypatch, folder / "none.sock", folder / "dead.sock")
    with pytest.raises(client.UnreachableError, match=r"^cannot reach the master: \S+/dead.sock: connection refused$"):
        client.Connection("")
    dead.close()


def test_somebody_elses_socket_may_not_be_asked(loop: Loop) -> None:
    os.seteuid(NOBODY)
    try:
        with pytest.raises(client.UnreachableError, match=r"control.sock: permission denied$"):
            client.Connection(loop.control.path)
    finally:
        os.seteuid(0)


def test_somebody_elses_socket_is_not_believed(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        trap = Loop(folder / "control.sock")
        trap.control.open()
    finally:
        os.seteuid(0)
    os.chmod(trap.control.path, 0o666)
    os.seteuid(1)
    try:
        with pytest.raises(client.ControlError, match=r"^cannot trust the control socket: it is of uid 65534$"):
            client.Connection(trap.control.path)
    finally:
        os.seteuid(0)
    trap.control.close()


def test_a_master_that_does_not_answer(loop: Loop) -> None:
    with pytest.raises(client.UnreachableError, match=r"^cannot reach the master: no answer within 0.1 s$"):
        client.ask(loop.control.path, {"ask": "ping"}, 0.1)


def test_a_master_that_does_not_even_accept(loop: Loop) -> None:
    peers = loop.fill()
    with pytest.raises(client.UnreachableError, match=r"control.sock: connection timed out$"):
        client.ask(loop.control.path, {"ask": "ping"}, 0.1)
    for peer in peers:
        peer.sock.close()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "cannot reach the master: it hung up"),
        (b'{"ok":tr', "cannot reach the master: it hung up"),
        (b"hello\n", "cannot read the answer: not a JSON object"),
        (b"[]\n", "cannot read the answer: not a JSON object"),
        (b"\xff\n", "cannot read the answer: not a JSON object"),
        (b"[" * 100_000 + b"\n", "cannot read the answer: not a JSON object"),
    ],
)
def test_an_answer_that_is_none(folder: Path, entrypoint: str, answer: bytes, error: str) -> None:
    path = folder / "odd.sock"
    loop = Loop(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(10)
        running = loop.start(entrypoint, "status", "--socket", str(path))
        peer: Any = server.accept()[0]
        with peer:
            peer.recv(4096)
            peer.sendall(answer)
        assert running.wait() == 1
    assert running.err == f"entrypoint: {error}\n"
    running.close()
