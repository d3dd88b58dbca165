"""What a process that the master starts finds: descriptors, variables, a place of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.config.environment import Identity, worker_environment
from entrypoint.config.spec import Process
from entrypoint.linux import kernel
from entrypoint.master.processes.spawn import Child, Spawner, Surroundings, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Tells what it is and has, as a line of JSON in the file that is its first argument.
TELL = r"""
import json, os, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
OWN = 3 << 31  # 32 and 33 are the C library's own; its posix_spawn leaves them ignored, until they are needed
signals = {name: int(status[name], 16) & ~OWN for name in ("SigBlk", "SigIgn", "SigCgt")}
inodes = {}
for fd in range(3, 64):
    try:
        inodes[fd] = os.fstat(fd).st_ino
    except OSError:
        pass
environ = dict(pair.split("=", 1) for pair in open("/proc/self/environ").read().split("\0")[:-1])
stdin = os.readlink("/proc/self/fd/0")
json.dump({"pid": os.getpid(), "group": os.getpgid(0), "umask": os.umask(0), "cwd": os.getcwd(), "argv": sys.argv[2:],
           "inodes": inodes, "environ": environ, "signals": signals, "stdin": stdin,
           "limits": open("/proc/self/limits").read()}, open(sys.argv[1], "w"))
"""


IDENTITY = {
    "ENTRYPOINT_POOL": "web",
    "ENTRYPOINT_SLOT": "2",
    "ENTRYPOINT_WORKER": "web/2",
    "ENTRYPOINT_GENERATION": "7",
}


@pytest.fixture
def null() -> Iterator[int]:
    fd = os.open(os.devnull, os.O_RDWR)
    yield fd
    os.close(fd)


def end(spawner: Spawner, child: Child) -> str:
    """Wait for a process; why its program was not executed."""
    error = ""
    if child.status >= 0:
        with open(child.status, "rb") as status:
            error = spawner.outcome(child, status.read())
    os.waitpid(child.pid, 0)
    return error


@pytest.fixture
def run(null: int, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Spawn a process of these settings twice, by a fork and in whatever way comes after it; what both tell."""

    kernel.keep_descriptors_from_workers()  # whoever runs the tests may have left some

    def start(
        *, argv: tuple[str, ...] = (), process: Process | None = None, forked: bool = False, **fields: Any
    ) -> dict[str, Any]:
        """`forked`: it takes a child, every time."""
        told = tmp_path / "told"
        command = (sys.executable, "-I", "-S", "-c", TELL, str(told), *argv)
        base = {"PATH": "/bin", "NOTIFY_SOCKET": "@outer", "LISTEN_PID": "1", "WATCHDOG_PID": "1"}
        around = Surroundings(base, os.getpid(), null, tuple(int(n) for n in kernel.HANDLED), None, None, None)
        process = (process or Process((), ""))._replace(argv=command, display="tell")
        spawner = Spawner(around)
        task = Task(process, Identity("web", 2, 7), fields.pop("sockets", []), **fields)
        all_found: list[dict[str, Any]] = []
        for turn in range(2):
            child = spawner.spawn(task)
            assert (child.status < 0) == (turn == 1 and not forked)
            assert end(spawner, child) == ""
            found: dict[str, Any] = json.loads(told.read_text())
            assert found["pid"] == child.pid == found["group"]
            all_found.append(found)
        pids = ("pid", "group")
        assert {**all_found[0], **dict.fromkeys(pids)} == {**all_found[1], **dict.fromkeys(pids)} or forked
        return all_found[1]

    return start


def test_notify_and_heartbeat(run: Callable[..., dict[str, Any]]) -> None:
    found = run(notify="@here", heartbeat=1.5, forked=True)
    assert found["environ"] == {
        **IDENTITY,
        "PATH": "/bin",
        "NOTIFY_SOCKET": "@here",
        "WATCHDOG_USEC": "1500000",
        "WATCHDOG_PID": str(found["pid"]),
    }
    assert found["inodes"] == {}


def test_pids_are_right_where_the_environment_is_made_before_and_where_it_is_made_after_the_fork(
    run: Callable[..., dict[str, Any]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        for argv in ((), ("$(LISTEN_PID) $(WATCHDOG_PID)",)):
            found = run(argv=argv, heartbeat=2, sockets=[("http", sock.fileno())], forked=True)
            pid = str(found["pid"])
            assert (found["environ"]["LISTEN_PID"], found["environ"]["WATCHDOG_PID"]) == (pid, pid)
            assert found["argv"] == ([f"{pid} {pid}"] if argv else [])


def test_a_hook_runs_as_its_worker_does_and_knows_its_pid(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    process = Process(
        (),
        "",
        env=(("ME", "$(ENTRYPOINT_WORKER)"),),
        env_files=(("SECRET", str(secret)),),
        cwd=str(tmp_path),
        umask=0o27,
    )
    found = run(process=process, argv=("$(MAINPID)",), main_pid=4711, forked=True)
    assert found["argv"] == ["4711"]
    assert (found["cwd"], found["umask"], found["inodes"]) == (str(tmp_path), 0o27, {})
    environ = found["environ"]
    assert (environ["MAINPID"], environ["ME"], environ["SECRET"]) == ("4711", "web/2", "s3cret")
    assert not {"LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_PID"} & set(environ)


def test_a_helper_has_the_masters_environment_and_its_descriptor(run: Callable[..., dict[str, Any]]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = run(bare=True, argv=("$(PATH)",), sockets=[("", theirs.fileno())])
        assert found["inodes"] == {"3": os.fstat(theirs.fileno()).st_ino}
    assert found["argv"] == ["$(PATH)"]
    assert found["environ"] == {"PATH": "/bin", "NOTIFY_SOCKET": "@outer", "LISTEN_PID": "1", "WATCHDOG_PID": "1"}


# Spawns with sockets at the descriptors given as arguments, after everything from 3 on was closed; the report pipe
# and /dev/null come to be among those that the sockets are to be put at.
CROWDED = r"""
import os, socket, sys
from entrypoint.config.environment import Identity
from entrypoint.config.spec import Process
from entrypoint.master.processes.spawn import Spawner, Surroundings, Task
program, told, tell, *numbers = sys.argv[1:]
os.closerange(3, 64)
fds = []
for number in map(int, numbers):
    if number not in fds:
        made = socket.socket().detach()
        if made != number:
            os.dup2(made, number, inheritable=False)
            os.close(made)
    fds.append(number)
null = os.open("/dev/null", os.O_RDWR)
around = Surroundings(dict(os.environ), os.getpid(), null, (), None, None, None)
process = Process((program, "-I", "-S", "-c", tell, told), "it")
child = Spawner(around).spawn(Task(process, Identity("web", 0, 1), [(f"s{fd}", fd) for fd in fds]))
error = os.read(child.status, 1000)
os.waitpid(child.pid, 0)
print(*(os.fstat(fd).st_ino for fd in fds))
print(error.decode())
"""


@pytest.mark.parametrize(
    "numbers", [[20, 21], [3], [4, 3], [5, 4, 3, 6], [20, 3, 21, 22, 23, 24], [7, 20, 21, 22, 8, 23], [3, 3, 4]]
)
@pytest.mark.parametrize("exists", [True, False])
def test_descriptors_in_the_way_of_the_sockets_are_moved(tmp_path: Path, numbers: list[int], *, exists: bool) -> None:
    told = tmp_path / "told"
    program = sys.executable if exists else "/no/such/program"
    argv = [sys.executable, "-c", CROWDED, program, str(told), TELL, *map(str, numbers)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    first, error = done.stdout.split("\n")[:2]
    inodes = [int(word) for word in first.split()]
    assert error == ("" if exists else "cannot execute it: no such file")
    if exists:
        found = json.loads(told.read_text())
        assert found["inodes"] == {str(number): inode for number, inode in enumerate(inodes, 3)}
        assert found["environ"]["LISTEN_FDNAMES"] == ":".join(f"s{number}" for number in numbers)


def test_the_order_in_which_variables_are_set(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("A=file\nB=file\nENTRYPOINT_SLOT=99\n")
    process = Process(
        (), "", env=(("B", "$(A) $(EXTRA)"), ("C", "$(B)")), env_from=(str(file),), unset=("GONE",)
    )  # fmt: skip
    base = {"A": "base", "GONE": "1", "NOTIFY_SOCKET": "@outer", "LISTEN_FDS": "1", "STAYS": "1"}
    found = worker_environment(base, process, Identity("web", 2, 7), {"EXTRA": "extra"})
    assert found == {
        **IDENTITY,
        "A": "file",
        "B": "file extra",
        "C": "file extra",
        "STAYS": "1",
        "EXTRA": "extra",
    }
    assert base["A"] == "base"
