"""posix_spawn beside fork: which programs are started without a fork, and that nobody can tell the difference."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from entrypoint.config.environment import Identity
from entrypoint.config.spec import Process
from entrypoint.linux import kernel
from entrypoint.master.processes.programs import is_near
from entrypoint.master.processes.spawn import Spawner, Surroundings, Task
from tests.system.conftest import status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Start
PLAIN = Process((), "")
OWN = 3 << 31  # signals 32 and 33, which are the C library's own: its posix_spawn leaves them ignored
LIBC = ctypes.CDLL(None)
RT_SIGACTION = {"x86_64": 13}.get(os.uname().machine, 134)
FORKED = PLAIN._replace(umask=0o22)  # what a child has to set itself


class Starter:
    """Starts shell scripts and programs, and sees what becomes of them."""

    def __init__(self, null: int, log: Path, *, nofile: tuple[int, int] | None = None, path: str = "/bin") -> None:
        self.log = log
        handled = tuple(int(n) for n in kernel.HANDLED)
        self.spawner = Spawner(Surroundings({"PATH": path}, os.getpid(), null, handled, None, None, None, nofile))

    def start(self, *argv: str, process: Process = PLAIN) -> tuple[bool, int, str]:
        """Whether it took a fork, the exit status, and why the program was not executed."""
        out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        task = Task(process._replace(argv=argv, display="it"), Identity("web", 0, 1), [], output=(out, out))
        try:
            child = self.spawner.spawn(task)
        finally:
            os.close(out)
        error, forked = "", child.status >= 0
        if forked:
            with open(child.status, "rb") as status:
                error = self.spawner.outcome(child, status.read())
        return forked, os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]), error


@pytest.fixture
def null() -> Iterator[int]:
    kernel.keep_descriptors_from_workers()  # whoever runs the tests may have left some
    fd = os.open(os.devnull, os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def starter(null: int, tmp_path: Path) -> Starter:
    return Starter(null, tmp_path / "log")


def is_here(path: Path) -> bool:
    return path.stat().st_dev in {os.stat(place).st_dev for place in ("/", sys.executable)}


@pytest.fixture
def near() -> Iterator[Path]:
    """A folder on the file system of the interpreter."""
    path = f"{sys.executable}.folder-of-{os.getpid()}"
    os.mkdir(path)
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_only_what_has_been_executed_goes_without_a_fork(starter: Starter) -> None:
    assert starter.start("/bin/sh", "-c", "exit 3") == (True, 3, "")
    assert starter.start("/bin/sh", "-c", "exit 4") == (False, 4, "")
    assert starter.start("sh", "-c", "exit 5") == (True, 5, "")  # another name, and a search for it
    assert starter.start("sh", "-c", "exit 6") == (False, 6, "")
    assert starter.start("sh", "-c", "exit 7", process=FORKED) == (True, 7, "")


TELL = "grep -E '^(Sig(Blk|Cgt|Ign))' /proc/self/status; ls -l /proc/self/fd | wc -l; echo err >&2; ulimit -n"


def without_own(ignored: re.Match[str]) -> str:
    return f"{int(ignored[0], 16) & ~OWN:016x}"


@pytest.mark.parametrize("lowered", [None, 100])
def test_a_program_finds_the_same_either_way(null: int, tmp_path: Path, lowered: int | None) -> None:
    limits = subprocess.run(["sh", "-c", "ulimit -n; ulimit -Hn"], capture_output=True, text=True, check=True)
    now, hard = (int(word) for word in limits.stdout.split())
    starter = Starter(null, tmp_path / "log", nofile=(lowered, hard) if lowered else None)
    caught = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        texts = []
        for _ in range(2):
            starter.start("sh", "-c", TELL)
            texts.append(re.sub(r"(?<=SigIgn:\t)\w+", without_own, starter.log.read_text()))
    finally:
        signal.signal(signal.SIGUSR1, caught)
    assert texts[0] == texts[1]
    assert texts[0].splitlines()[-2:] == ["err", str(lowered or now)]
    if lowered:
        import resource

        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (now, hard))


def test_what_is_wrong_reads_the_same_when_it_has_worked_before(starter: Starter, near: Path) -> None:
    program = script(near / "program", "exit 0")
    assert starter.start(program) == (True, 0, "")
    assert starter.start(program) == (False, 0, "")
    os.chmod(program, 0o644)
    assert starter.start(program) == (True, 126, "cannot execute it: Permission denied")
    os.chmod(program, 0o755)
    assert starter.start(program)[0] is False
    (near / "program").write_text("#!/no/such/interpreter\n")
    forked, code, error = starter.start(program)
    assert (forked, code) == (True, 126)
    assert error
    os.unlink(program)
    assert starter.start(program) == (True, 127, "cannot execute it: no such file")


def test_the_path_is_searched_every_time(null: int, tmp_path: Path, near: Path) -> None:
    for name in ("first", "second"):
        (near / name).mkdir()
    starter = Starter(null, tmp_path / "log", path=f"{near}/first:{near}/second:/bin")
    script(near / "second/it", "exit 2")
    assert starter.start("it") == (True, 2, "")
    assert starter.start("it") == (False, 2, "")
    script(near / "first/it", "exit 1")
    assert starter.start("it") == (True, 1, "")
    assert starter.start("it") == (False, 1, "")
    os.unlink(near / "first/it")
    assert starter.start("it") == (True, 2, "")
    os.unlink(near / "second/it")
    assert starter.start("it") == (True, 127, "cannot execute it: no such command")


def test_what_lies_elsewhere_is_always_forked(starter: Starter, near: Path) -> None:
    """As on a network file system, whose server may be gone the next time: that must not stop the master."""
    far = Path("/dev/shm") / f"far-{os.getpid()}"
    assert not is_here(far.parent)
    far.mkdir()
    try:
        program = script(far / "program", "exit 0")
        for path, text in ((near / "link", None), (near / "interpreted", f"#!{program}\n")):
            if text is None:
                path.symlink_to(program)
            else:
                path.write_text(text)
                path.chmod(0o755)
        (near / "folder").symlink_to(far)
        (far / "back").symlink_to("/bin/sh")
        for command in (program, f"{near}/link", f"{near}/folder/program", f"{near}/interpreted", f"{far}/back"):
            for _ in range(2):
                assert starter.start(command)[0] is True, command
    finally:
        shutil.rmtree(far)


def test_a_file_that_is_not_there_is_near_when_that_can_be_told_here() -> None:
    devices = frozenset({os.stat("/").st_dev})
    assert is_near("/no/such/file", devices)
    assert not is_near("/dev/shm/no/such/file", devices)
    assert not is_near("/bin/sh", frozenset())


def take_own_as_usual() -> None:
    """Whoever runs the tests may have started us by posix_spawn, as make does, and no libc undoes that."""
    for number in (32, 33):
        LIBC.syscall(RT_SIGACTION, number, bytes(64), None, 8)


@pytest.mark.parametrize(
    ("more", "forked"),
    [("", False), (", umask: '022'", True), (", sockets: [s]", True), (", heartbeat: {timeout: 5m}", True)],
)
def test_a_successor_at_pid_1_takes_a_fork_only_where_it_has_to(start: Start, more: str, *, forked: bool) -> None:
    sockets = "sockets: {s: {bind: '127.0.0.1:0'}}" if "sockets" in more else ""
    text = f"pools: {{web: {{command: [sleep, '1000']{more}, ready: {{after: 0s}}}}}}\n{sockets}"
    master = start(text, pid1=True, preexec_fn=take_own_as_usual)
    pid = master.worker("sleep")
    master.wait_for("worker_ready")
    assert not int(status_of(pid, "SigIgn"), 16) & OWN  # the first of all is always forked
    os.kill(pid, signal.SIGKILL)
    successor = master.worker("sleep", other_than=pid)
    assert bool(int(status_of(successor, "SigIgn"), 16) & OWN) != forked
    assert master.stop()[0] == 0
