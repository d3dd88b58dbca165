"""A configuration that is loaded later changes the sockets that are held."""

from __future__ import annotations

import os
import socket
import stat
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from entrypoint.master.sockets.held import SocketError
from tests.sockets.harness import spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.master.sockets.held import Sockets
    from tests.sockets.harness import Clients

both = pytest.mark.parametrize("reuse", [False, True])


def inode(sockets: Sockets, *specs: object) -> tuple[int, ...]:
    return sockets.inodes(specs, 0)  # type: ignore[arg-type] # a list does


def kernel_limit(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        limit: int = struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 28)[0]
        return limit


@both
def test_what_is_new_is_bound_and_what_was_there_is_kept(
    sockets: Sockets, clients: Clients, bind: str, other: str, *, reuse: bool
) -> None:
    old, new = spec(bind, reuse_port=reuse), spec(other, "admin", reuse_port=reuse)
    sockets.prepare((old,))
    before = inode(sockets, old)
    clients.connect(old)
    sockets.prepare((old, new))
    clients.connect(new)
    assert inode(sockets, old) == before
    assert sockets.describe()["http"]["queued"] == 1


def test_a_socket_that_is_renamed_stays_the_same(sockets: Sockets, clients: Clients, bind: str, other: str) -> None:
    one, two = spec(bind, "one"), spec(other, "two")
    sockets.prepare((one, two))
    before = sockets.of_worker((one, two), 0)
    clients.connect(one)
    swapped = (one._replace(name="two"), two._replace(name="one"))
    sockets.prepare(swapped)
    assert sockets.of_worker(swapped, 0) == [("two", before[0][1]), ("one", before[1][1])]
    assert {name: about["queued"] for name, about in sockets.describe().items()} == {"two": 1, "one": 0}


@both
def test_another_backlog_reaches_the_kernel(sockets: Sockets, bind: str, *, reuse: bool) -> None:
    old = spec(bind, backlog=100, reuse_port=reuse)
    sockets.prepare((old,))
    fds = [sockets.of_worker((old,), slot)[0][1] for slot in range(2)]
    new = old._replace(backlog=50)
    sockets.prepare((new,))
    fds.append(sockets.of_worker((new,), 2)[0][1])
    assert [kernel_limit(fd) for fd in fds] == [50, 50, 50]
    assert sockets.describe() == {"http": {"bind": bind, "backlog": 150 if reuse else 50, "queued": 0}}


def test_another_mode_and_owner_reach_the_file(sockets: Sockets, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    old = spec(f"unix:{path}", mode=0o600)
    sockets.prepare((old,))
    made = path.stat().st_ino
    sockets.prepare((old._replace(mode=0o620, uid=65534, gid=1),))
    found = path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o620, 65534, 1)
    sockets.prepare((spec(f"unix:{path}"),))
    found = path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o666, os.geteuid(), os.getegid())
    assert found.st_ino == made


def test_the_file_of_another_is_not_changed(sockets: Sockets, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    old = spec(f"unix:{path}", mode=0o600)
    sockets.prepare((old,))
    path.unlink()
    path.write_text("data")
    before = path.stat().st_mode
    with pytest.raises(SocketError, match=r"cannot change unix:.* \(socket http\): its file is not there any more"):
        sockets.prepare((old._replace(mode=0o666),))
    sockets.forget((old,))
    assert path.stat().st_mode == before
    assert path.read_text() == "data"


@both
def test_all_or_nothing(
    sockets: Sockets, clients: Clients, bind: str, other: str, tmp_path: Path, *, reuse: bool
) -> None:
    kept, file = spec(bind, backlog=100, reuse_port=reuse), spec(f"unix:{tmp_path}/kept", "file", mode=0o600)
    sockets.prepare((kept, file))
    fd = sockets.of_worker((kept,), 0)[0][1]
    open_before = len(os.listdir("/proc/self/fd"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        new = (
            kept._replace(backlog=50),
            file._replace(mode=0o666),
            spec(other, "second"),
            spec(f"unix:{tmp_path}/new", "third"),
            spec(f"127.0.0.1:{port}", "last", reuse_port=reuse),
        )
        with pytest.raises(SocketError) as error:
            sockets.prepare(new)
        assert str(error.value).startswith(
            f"cannot bind 127.0.0.1:{port} (socket last): address already in use; pid {os.getpid()} ("
        )
    assert len(os.listdir("/proc/self/fd")) == open_before
    with pytest.raises(ConnectionRefusedError):
        clients.connect(new[2])
    assert sorted(os.listdir(tmp_path)) == ["kept"]
    assert kernel_limit(fd) == 100
    assert list(sockets.describe()) == ["http", "file"]
    sockets.prepare(new[:-1])  # what failed once is no obstacle
    clients.connect(new[2])


def test_what_cannot_be_changed_takes_back_the_other_changes(sockets: Sockets, bind: str, tmp_path: Path) -> None:
    one = spec(bind, "one", backlog=100)
    two, three = (spec(f"unix:{tmp_path}/{name}", name, mode=0o600) for name in ("two", "three"))
    sockets.prepare((one, two, three))
    (tmp_path / "three").unlink()
    with pytest.raises(SocketError, match="socket three"):
        sockets.prepare((one._replace(backlog=50), *(s._replace(mode=0o666) for s in (two, three))))
    assert kernel_limit(sockets.of_worker((one,), 0)[0][1]) == 100
    assert stat.S_IMODE((tmp_path / "two").stat().st_mode) == 0o600
    sockets.prepare((one, two, three))  # nothing to change, so nothing to complain about


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (":{port}", "127.0.0.1:{port}"),
        ("127.0.0.1:{port}", "0.0.0.0:{port}"),
        ("[::1]:{port}", "[::]:{port}"),
    ],
)
def test_an_address_that_a_held_socket_covers(
    sockets: Sockets, free_port: Callable[[], int], held: str, wanted: str
) -> None:
    port = free_port()
    held, wanted = held.format(port=port), wanted.format(port=port)
    sockets.prepare((spec(held, "web"),))
    with pytest.raises(SocketError) as error:
        sockets.prepare((spec(wanted, "api"),))
    assert str(error.value) == (
        f"cannot bind {wanted} (socket api): address already in use;"
        f" it is still held as socket web ({held}): restart to change it"
    )


@both
def test_reuse_port_cannot_be_switched_while_the_socket_is_held(sockets: Sockets, bind: str, *, reuse: bool) -> None:
    sockets.prepare((spec(bind, reuse_port=reuse),))
    with pytest.raises(SocketError, match="it is still held as socket http"):
        sockets.prepare((spec(bind, reuse_port=not reuse),))


@both
def test_what_is_forgotten_is_gone(
    sockets: Sockets, clients: Clients, bind: str, tmp_path: Path, *, reuse: bool
) -> None:
    tcp, unix = spec(bind, reuse_port=reuse), spec(f"unix:{tmp_path}/socket", "admin")
    sockets.prepare((tcp, unix))
    clients.connect(tcp, 3)
    sockets.prepare(())
    clients.connect(tcp)  # not before it is forgotten
    assert sockets.describe() == {}
    assert sockets.forget((tcp, unix)) == {"http": 4, "admin": 0}
    with pytest.raises(ConnectionRefusedError):
        clients.connect(tcp)
    assert not (tmp_path / "socket").exists()
    assert sockets.of_worker((tcp, unix), 0) == []
    sockets.prepare((tcp, unix))  # as if for the first time
    clients.connect(tcp)
    clients.connect(unix)


def test_the_file_stays_until_the_end_of_a_shutdown(sockets: Sockets, tmp_path: Path) -> None:
    unix = spec(f"unix:{tmp_path}/socket")
    sockets.prepare((unix,))
    assert sockets.close((unix,)) == {"http": 0}
    assert (tmp_path / "socket").exists()
    sockets.unlink()
    assert not (tmp_path / "socket").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to stop being root")
def test_a_socket_whose_owner_cannot_be_set_leaves_no_file(sockets: Sockets) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        os.seteuid(65534)
        try:
            with pytest.raises(SocketError, match=r"\(socket http\): operation not permitted"):
                sockets.prepare((spec(f"unix:{folder}/socket", uid=0),))
        finally:
            os.seteuid(0)
        assert os.listdir(folder) == []


def test_a_descriptor_is_taken_over_at_the_start_and_only_then(sockets: Sockets, clients: Clients) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    host, port = given.getsockname()
    reached = spec(f"{host}:{port}")
    wanted = spec(f"fd:{given.fileno()}")
    with pytest.raises(SocketError, match=rf"cannot use fd:{wanted.fd} \(socket http\): .* at the start only"):
        sockets.prepare((wanted,))
    sockets.prepare((wanted,), starting=True)
    clients.connect(reached)
    sockets.prepare((wanted._replace(backlog=1),))  # known already
    assert sockets.describe()["http"]["queued"] == 1
    assert sockets.close((wanted,)) == {"http": 1}
    with pytest.raises(ConnectionRefusedError):  # no copy was left at the number that it had
        clients.connect(reached)
    given.close()


@both
def test_inodes_are_those_of_the_kernels_table(sockets: Sockets, bind: str, other: str, *, reuse: bool) -> None:
    specs = (spec(bind, reuse_port=reuse), spec(other, "other"))
    sockets.prepare(specs)
    sockets.of_worker(specs, 0)
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {int(row[1].partition(":")[2], 16): int(row[9]) for row in table if row[3] == "0A"}
    assert sockets.inodes(specs, 0) == tuple(listening[s.port] for s in specs)


def test_what_is_described(sockets: Sockets, clients: Clients, bind: str, other: str, tmp_path: Path) -> None:
    specs = (
        spec(bind, "shared", backlog=10),
        spec(other, "own", backlog=10, reuse_port=True),
        spec(f"unix:{tmp_path}/s", "file", backlog=10),
    )
    sockets.prepare(specs)
    for slot in range(3):
        sockets.of_worker(specs, slot)
    for s in specs:
        clients.connect(s, 4)
    assert sockets.describe() == {
        "shared": {"bind": bind, "backlog": 10, "queued": 4},
        "own": {"bind": other, "backlog": 30, "queued": 4},
        "file": {"bind": f"unix:{tmp_path}/s", "backlog": 10, "queued": 0},
    }
