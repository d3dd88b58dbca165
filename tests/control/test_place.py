"""Where the control socket is, and who may use it."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.config.location import find_control
from entrypoint.master.control import server as control
from tests.control.conftest import NOBODY, Loop

PING = b'{"ask":"ping"}\n'
PONG = {"ok": True, "phase": "running"}


def clients(loop: Loop) -> int:
    return len(loop.control._clients)


# -- who may ask ---------------------------------------------------------------------------------------------


def as_user(uid: int, path: str) -> subprocess.Popen[bytes]:
    """Ask from a process of another user; prints what comes, or the error."""
    code = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "try:\n"
        "    s.connect(sys.argv[2])\n"
        '    s.sendall(b\'{"ask":"ping"}\\n\')\n'
        "    print(s.recv(4096).decode(), end='')\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", code, str(uid), path], stdout=subprocess.PIPE)


def said(loop: Loop, process: subprocess.Popen[bytes]) -> str:
    loop.until(lambda: process.poll() is not None)
    return process.communicate()[0].decode()


def test_the_file_is_private_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        loop = Loop(folder / "control.sock")
        loop.control.open()
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.lstat(loop.control.path).st_mode) == 0o600
    assert said(loop, as_user(NOBODY, loop.control.path)) == "Permission denied\n"
    loop.control.close()


def test_another_user_is_refused_even_when_the_file_is_open_to_all(loop: Loop) -> None:
    os.chmod(loop.control.path, 0o666)
    answer = said(loop, as_user(NOBODY, loop.control.path))
    if answer != "Broken pipe\n":  # it was refused before it had asked
        assert json.loads(answer) == {"ok": False, "error": "cannot answer uid 65534: not your master"}
    assert not loop.requests
    with loop.connect() as peer:
        peer.send(PING)
        assert peer.rest() == [PONG]


def test_root_and_the_masters_own_user_may_ask_a_master_that_is_not_root(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        loop = Loop(folder / "control.sock")
        loop.control.open()
        os.seteuid(0)
        askers = [as_user(uid, loop.control.path) for uid in (0, NOBODY)]
        os.seteuid(NOBODY)
        assert [json.loads(said(loop, asker)) for asker in askers] == [PONG, PONG]
        loop.control.close()
    finally:
        os.seteuid(0)


# -- the socket's place --------------------------------------------------------------------------------------


def test_a_socket_that_a_dead_master_left_is_replaced(folder: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "control.sock"))
    dead.listen()
    dead.close()
    loop = Loop(folder / "control.sock")
    loop.control.open()
    assert loop.ask(PING) == [PONG]
    loop.control.close()
    assert not list(folder.iterdir())


@pytest.mark.parametrize("queue_is_full", [False, True])
def test_a_socket_of_a_living_master_is_left_alone(loop: Loop, *, queue_is_full: bool) -> None:
    peers = loop.fill() if queue_is_full else []
    with pytest.raises(OSError, match="somebody accepts on it") as caught:
        Loop(Path(loop.control.path)).control.open()
    assert caught.value.errno == errno.EADDRINUSE
    for peer in peers:
        peer.sock.close()
    loop.until(lambda: loop.turn() == 0 and clients(loop) == 0)
    assert loop.ask(PING) == [PONG]


def test_a_file_that_is_no_socket_is_left_alone(folder: Path) -> None:
    (folder / "control.sock").write_text("precious")
    with pytest.raises(FileExistsError):
        Loop(folder / "control.sock").control.open()
    assert (folder / "control.sock").read_text() == "precious"


def test_the_file_of_a_successor_is_not_removed(loop: Loop) -> None:
    os.unlink(loop.control.path)
    successor = Loop(Path(loop.control.path))
    successor.control.open()
    loop.control.close()
    assert successor.ask(PING) == [PONG]
    successor.control.close()


def test_closing_ends_every_connection_and_refuses_new_ones_while_a_child_holds_copies(loop: Loop) -> None:
    loop.handle = lambda *_: None
    with loop.connect() as peer:
        peer.send(PING)
        loop.until(lambda: loop.requests)
        held = os.dup(loop.control._listener.fileno()) if loop.control._listener else -1
        other = os.dup(next(iter(loop.control._clients.values())).fd)
        os.link(loop.control.path, f"{loop.control.path}.2")
        loop.control.close()
        peer.read()
        assert peer.ended
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
            late.connect(f"{loop.control.path}.2")
        os.close(held)
        os.close(other)
    assert loop.control.deadline == float("inf")


def test_the_folder_is_made_private(folder: Path) -> None:
    loop = Loop(folder / "new" / "control.sock")
    loop.control.open()
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o700
    loop.control.close()


@pytest.mark.parametrize("kind", ["symlink", "foreign", "writable", "file"])
def test_in_a_folder_of_everybody_a_foreign_folder_is_not_trusted(folder: Path, kind: str) -> None:
    folder.chmod(0o1777)
    trap = folder / "entrypoint-0"
    if kind == "symlink":
        (folder / "real").mkdir(mode=0o700)
        trap.symlink_to(folder / "real")
    elif kind == "file":
        trap.write_text("")
    else:
        trap.mkdir(mode=0o700)
        if kind == "foreign":
            os.chown(trap, NOBODY, NOBODY)
        else:
            trap.chmod(0o777)
    with pytest.raises((PermissionError, NotADirectoryError)):
        Loop(trap / "control.sock").control.open()
    assert not (trap / "control.sock").exists()


def test_the_first_place_that_works_is_taken(folder: Path) -> None:
    loop = Loop(folder)
    (folder / "file").write_text("")
    paths = [f"{folder}/no/such/control.sock", f"{folder}/file/control.sock", f"{folder}/good/control.sock"]
    server = control.listen(paths, loop.watch, loop.unwatch, loop._handle)
    assert server.path == paths[2]
    server.close()


def test_no_place_works(folder: Path) -> None:
    loop = Loop(folder)
    (folder / "file").write_text("")
    paths = [f"{folder}/no/such/control.sock", f"{folder}/file/control.sock", f"{folder}/{'x' * 100}/control.sock"]
    with pytest.raises(OSError, match="cannot open the control socket") as caught:
        control.listen(paths, loop.watch, loop.unwatch, loop._handle)
    assert caught.value.strerror == (
        f"cannot open the control socket: {paths[0]}: no such file or directory; {paths[1]}: not a directory; "
        f"{paths[2]}: AF_UNIX path too long"
    )
    assert not loop.handlers


def test_where_the_socket_may_be() -> None:
    uid = os.geteuid()
    shared = f"/dev/shm/entrypoint-{uid}/control.sock"
    assert find_control("auto", {}) == find_control("", {}) == ["/run/entrypoint/control.sock", shared]
    assert find_control("auto", {"XDG_RUNTIME_DIR": "/run/user/7/"}) == [
        "/run/entrypoint/control.sock",
        "/run/user/7/entrypoint/control.sock",
        shared,
    ]
    assert find_control("auto", {"XDG_RUNTIME_DIR": "relative"}) == ["/run/entrypoint/control.sock", shared]
    assert find_control("/x/y.sock", {"XDG_RUNTIME_DIR": "/run/user/7"}) == ["/x/y.sock"]
