"""A pid namespace of the bench's own, in which the bench is PID 1.

That makes three things exact and simple: every process but PID 1 belongs to the system under measurement; when
wait(2) says that no child is left, everything is gone, orphans included; and whatever happens to the bench, the
kernel kills all that it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_MARKER = "ENTRYPOINT_BENCH_INSIDE"


class BenchError(Exception):
    """The bench cannot go on; the text says what and why."""


def inside() -> bool:
    """Whether this process is the PID 1 that `enter` made."""
    return os.getpid() == 1 and _MARKER in os.environ


def unshare() -> list[str]:
    """The command prefix that runs a program as PID 1 of a new pid namespace with its own /proc."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc", "--"]


def enter(arguments: Sequence[str]) -> int:
    """Run `python -m bench ARGUMENTS` as PID 1 of a new pid namespace; return its exit status.

    Raises BenchError if the namespace cannot be made.
    """
    try:
        subprocess.run([*unshare(), "true"], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise BenchError("cannot find unshare: install util-linux") from error
    except subprocess.CalledProcessError as error:
        raise BenchError(f"cannot make a pid namespace (root or user namespaces are needed): {error.stderr}") from error
    command = [*unshare(), sys.executable, "-m", "bench", *arguments]
    # The directory is ours, not that of PID 1, which may be killed before it can clean up.
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        child = subprocess.Popen(command, env={**os.environ, _MARKER: directory})
        # unshare itself holds back TERM and INT; killing it makes the kernel kill the namespace with all that is in it.
        signal.signal(signal.SIGTERM, lambda *_: child.kill())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to PID 1 of the namespace as well
        status = child.wait()
    return status if status >= 0 else 128 - status


def scratch() -> str:
    """Inside the namespace: the directory for all files, removed when the namespace is gone."""
    return os.environ[_MARKER]


def processes() -> set[int]:
    """The pids of every process of the namespace but our own."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getpid()}


def within(unshare: int) -> dict[int, int]:
    """The processes of the namespace below ours that `unshare` has made: our pid of each by its own there."""
    found = {}
    for pid in processes() - {unshare}:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"NSpid:"):  # from our namespace inwards; see proc_pid_status(5)
                    outer, *inner = map(int, line.split()[1:])
                    if inner:
                        found[inner[-1]] = outer
    return found


def find(word: bytes, among: Iterable[int]) -> int:
    """The pid of the one process with that word in its command line. Raises LookupError."""
    for pid in among:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if word in file.read().split(b"\0"):
                return pid
    raise LookupError(f"no process has {word.decode()} in its command line")


def spawn(argv: Sequence[str], env: dict[str, str], log: Path) -> int:
    """Start a program with stdin from /dev/null and its output in the file `log`; return its pid."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    # Python ignores SIGPIPE and SIGXFSZ, and exec would keep it so.
    defaults = [signal.SIGPIPE, signal.SIGXFSZ]
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, fd, 1), (os.POSIX_SPAWN_DUP2, fd, 2)]
    try:
        return os.posix_spawnp(
            argv[0],
            list(argv),
            env,
            file_actions=actions,
            setpgroup=0,
            setsigmask=[],
            setsigdef=defaults,
        )
    except OSError as error:
        raise BenchError(f"cannot start {argv[0]}: {error.strerror}") from error
    finally:
        os.close(fd)
        os.close(null)


def reap(ended: dict[int, int] | None = None) -> bool:
    """Collect every child that has ended; return whether any process is left in the namespace.

    Exit codes (negative: the signal that killed it) are added to `ended` by pid.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        if ended is not None:
            ended[pid] = os.waitstatus_to_exitcode(status)


def wait_until_empty(timeout: float, ended: dict[int, int] | None = None) -> bool:
    """Reap until no process but ours is left; False if that takes longer than `timeout` seconds.

    `ended`: as for `reap`.
    SIGCHLD must be blocked, so that it can be waited for.
    """
    deadline = time.monotonic() + timeout
    while reap(ended):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        signal.sigtimedwait([signal.SIGCHLD], left)
    return True


def stop(master: int, timeout: float) -> None:
    """Send TERM and reap everything. Raises TimeoutError."""
    os.kill(master, signal.SIGTERM)
    if not wait_until_empty(timeout):
        raise TimeoutError(f"not gone {timeout:g} s after TERM")


def clear() -> None:
    """Kill and reap everything but us. Raises BenchError if something survives for 30 s."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)  # in a pid namespace: everything in it but its PID 1
    if not wait_until_empty(30.0):
        raise BenchError(f"cannot get rid of processes: {sorted(processes())}")
