"""Where the control socket is, and who may use it."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from entrypoint.cli import client
from entrypoint.config.control import find_control, named_control
from entrypoint.master.control import server as control
from tests.control.conftest import BASE_ENV, NOBODY, Loop

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("symlink", "not a directory"),
        ("foreign", "the folder belongs to uid 65534"),
        ("writable", "others can write to the folder (mode 0777)"),
        ("file", "not a directory"),
    ],
)
def test_in_a_folder_of_everybody_a_foreign_folder_is_not_trusted(
    folder: Path, entrypoint: str, monkeypatch: pytest.MonkeyPatch, kind: str, reason: str
) -> None:
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
    loop = Loop(trap / "control.sock")
    with pytest.raises(OSError, match=f"{re.escape(str(trap))}/control.sock: {re.escape(reason)}$"):
        control.listen([loop.control.path], loop.watch, loop.unwatch, loop._handle)
    assert not (trap / "control.sock").exists()
    # Who looks for the master is told, too.
    monkeypatch.setattr(client, "find_control", lambda *_: [f"{folder}/none/control.sock", loop.control.path])
    with pytest.raises(client.NoSocketError, match=re.escape(f"{folder}/none, {trap}; {trap}: {reason}")):
        client.Connection("")
    if kind != "foreign":  # root may ask a master of anybody's
        ran = loop.run(entrypoint, "stop", "web", "--socket", loop.control.path)
        assert (ran.code, ran.err) == (1, f"entrypoint: cannot reach the master: {loop.control.path}: {reason}\n")
        ran.close()


def test_a_link_does_not_hide_that_everybody_may_make_files_there(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "real").chmod(0o1777)
    (folder / "link").symlink_to(folder / "real")
    (folder / "real/trap").mkdir()
    (folder / "real/trap").chmod(0o777)
    with pytest.raises(PermissionError, match="others can write"):
        Loop(folder / "link/trap/control.sock").control.open()


def test_the_reasons_of_ours_are_told(loop: Loop, folder: Path) -> None:
    (folder / "file.sock").write_text("precious")
    paths = [loop.control.path, str(folder / "file.sock")]
    with pytest.raises(OSError, match="cannot open the control socket") as caught:
        control.listen(paths, loop.watch, loop.unwatch, loop._handle)
    assert caught.value.strerror == (
        f"cannot open the control socket: {paths[0]}: somebody accepts on it; "
        f"{paths[1]}: the path exists and is no socket"
    )


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


# -- which master is asked -----------------------------------------------------------------------------------


@pytest.fixture
def usual(loop: Loop, folder: Path) -> Iterator[dict[str, str]]:
    """A master in a place that nobody has to name, beside `loop`; yields the environment in which it is found there."""
    runtime = folder / "runtime"
    other = Loop(runtime / "entrypoint/control.sock")
    runtime.mkdir()
    other.control.open()
    other.handle = lambda *_: pytest.fail("the wrong master was asked")
    # Both in one loop: the commands run while it turns.
    loop.epoll.register(other.epoll.fileno(), 1)
    loop.handlers[other.epoll.fileno()] = other.settle
    yield {**BASE_ENV, "XDG_RUNTIME_DIR": str(runtime)}
    del loop.handlers[other.epoll.fileno()]
    other.close()


@pytest.mark.parametrize(
    "text",
    [
        "control: {socket: %s}",
        '{"pools": {}, "control": {"socket": "%s"}}',
        "control:\n  socket: ${FOLDER}/control.sock",
        "control: {socket: '${NOT_SET:-%s}'}",
    ],
)
def test_the_configuration_that_is_named_decides(
    loop: Loop, folder: Path, entrypoint: str, usual: dict[str, str], text: str
) -> None:
    path = folder / "named.yaml"
    path.write_text(text.replace("%s", loop.control.path))
    env = {**usual, "ENTRYPOINT_CONFIG": str(path), "FOLDER": str(folder)}
    ran = loop.run(entrypoint, "stop", "web", env=env)
    assert (ran.code, ran.err) == (0, "")
    assert [request for _, request in loop.requests] == [{"ask": "stop", "pool": "web"}]
    assert loop.run(entrypoint, "probe", "live", env=env).code == 0


def test_a_variable_decides_before_the_configuration_and_the_option_before_both(
    loop: Loop, folder: Path, entrypoint: str, usual: dict[str, str]
) -> None:
    path = folder / "named.yaml"
    path.write_text("control: {socket: /no/such.sock}")
    env = {**usual, "ENTRYPOINT_CONFIG": str(path), "entrypoint_Control__Socket": loop.control.path}
    assert loop.run(entrypoint, "stop", "web", env=env).code == 0
    env["entrypoint_Control__Socket"] = "/nor/this.sock"
    assert loop.run(entrypoint, "stop", "web", "--socket", loop.control.path, env=env).code == 0
    assert len(loop.requests) == 2


def test_where_the_named_master_is_not_no_other_is_asked(
    loop: Loop, folder: Path, entrypoint: str, usual: dict[str, str]
) -> None:
    path = folder / "named.yaml"
    path.write_text(f"control: {{socket: {folder}/gone.sock}}")
    ran = loop.run(entrypoint, "stop", "web", env={**usual, "ENTRYPOINT_CONFIG": str(path)})
    gone = f"entrypoint: cannot reach the master: {folder}/gone.sock: no such file or directory\n"
    assert (ran.code, ran.err) == (1, gone)


@pytest.mark.parametrize(
    "text", ["pools: {}", "control: {socket: auto}", "control: {}", "control: [", "sockets: {}", ""]
)
def test_a_configuration_that_names_no_socket_leaves_the_usual_places(folder: Path, text: str) -> None:
    path = folder / "c.yaml"
    path.write_text(text)
    assert named_control("", {"ENTRYPOINT_CONFIG": str(path)}) == ""
    assert named_control("", {"ENTRYPOINT_CONFIG": f"{path}.not"}) == ""
    assert named_control("", {"ENTRYPOINT_CONTROL__SOCKET": "auto", "ENTRYPOINT_CONFIG": str(path)}) == ""


def test_a_fifo_as_the_configuration_makes_no_probe_wait(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    assert named_control("", {"ENTRYPOINT_CONFIG": str(folder / "fifo")}) == ""


def test_a_configuration_without_a_socket_costs_a_probe_no_yaml(folder: Path) -> None:
    path = folder / "c.yaml"
    path.write_text("pools: {web: {command: [a], sockets: [http]}}\nsockets: {http: {bind: ':80'}}\ncontrol: {}")
    code = (
        "import entrypoint.config.control as l, os, sys; l.named_control('', os.environ); print('yaml' in sys.modules)"
    )
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "ENTRYPOINT_CONFIG": str(path)}
    assert subprocess.check_output([sys.executable, "-S", "-c", code], env=env, text=True) == "False\n"
