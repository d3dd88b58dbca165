"""A running master: its lines as they come, its signals, its end; and nothing of it is left afterwards."""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., "Master"]
Event = dict[str, Any]

PR_SET_CHILD_SUBREAPER = 36
# The master as PID 1 of a pid namespace with its own /proc; it dies with the launcher.
PID1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
WORKER_ENV = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def poll(condition: Callable[[], Any], timeout: float = 10) -> Any:
    """Wait for what nothing announces."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, "it never came true"
        select.select([], [], [], 0.01)
    return result


def readable(fds: list[int], deadline: float) -> list[int]:
    """Those that can be read by then; unlike select, with any number of descriptors in use."""
    waiting = select.poll()
    for fd in fds:
        waiting.register(fd, select.POLLIN)
    return [fd for fd, _ in waiting.poll(max(0.0, deadline - time.monotonic()) * 1000)]


def children(pid: int) -> list[int]:
    try:
        found = [Path(f"/proc/{pid}/task/{t}/children").read_text().split() for t in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []
    return [int(child) for part in found for child in part]


def descendants(pid: int) -> dict[int, str]:
    """Every process below `pid` and what it runs."""
    found = {}
    for child in children(pid):
        try:
            state = re.search(r"State:\t(\w)", Path(f"/proc/{child}/status").read_text())
            command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        found[child] = f"{state and state[1]} {command}"
        found |= descendants(child)
    return found


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def status_of(pid: int, field: str) -> str:
    """One field of /proc/PID/status."""
    match = re.search(rf"^{field}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match
    return match[1]


class Master:
    """A master that was started, by itself or as PID 1. Workers write to the same pipe as it does."""

    def __init__(self, argv: list[str], **options: Any) -> None:
        self.events: list[Event] = []  # its log
        self.said: list[str] = []  # everything else on its standard output
        self._taken: set[int] = set()
        self._rest = b""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the master
        self.is_pid1 = argv[: len(PID1)] == list(PID1)
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", self._stderr)
        options.setdefault("start_new_session", True)
        self.began = time.monotonic()
        self.process = subprocess.Popen(argv, **options)
        self.out = self.process.stdout.fileno() if self.process.stdout is not None else -1

    @property
    def pid(self) -> int:
        """As seen from here."""
        if not self.is_pid1:
            return self.process.pid
        return int(poll(lambda: children(self.process.pid))[0])

    @property
    def errors(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode()

    def send(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def read(self, deadline: float) -> bool:
        """Read what comes next; False at the end of the output."""
        if not readable([self.out], deadline):
            raise TimeoutError(f"nothing more came after:\n{self.story()}")
        piece = os.read(self.out, 1 << 16)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b'{"'):
                self.events.append(json.loads(line))
            else:
                self.said.append(line.decode(errors="replace"))
        return bool(piece)

    def story(self) -> str:
        lines = [*(json.dumps(e) for e in self.events), *self.said, self.errors]
        return "\n".join(lines)

    def wait_for(self, event: str, timeout: float = 10, **fields: Any) -> Event:
        """The next line of the log with these fields that has not been waited for before."""

        def find() -> Event | None:
            for number, line in enumerate(self.events):
                wanted = line.get("event") == event and all(line.get(k) == v for k, v in fields.items())
                if wanted and number not in self._taken:
                    self._taken.add(number)
                    return line
            return None

        deadline = time.monotonic() + timeout
        while (found := find()) is None:
            if not self.read(deadline):
                raise EOFError(f"{event} {fields} never came:\n{self.story()}")
        return found

    def wait_for_line(self, pattern: str, timeout: float = 10) -> re.Match[str]:
        """The first line of a worker that matches."""
        deadline = time.monotonic() + timeout
        while not (found := [m for line in self.said if (m := re.search(pattern, line))]):
            if not self.read(deadline):
                raise EOFError(f"{pattern} never came:\n{self.story()}")
        return found[0]

    until = staticmethod(poll)
    alive = staticmethod(alive)
    status_of = staticmethod(status_of)

    def children(self) -> list[int]:
        return children(self.pid)

    def descendants(self) -> dict[int, str]:
        return descendants(self.pid)

    def wait_for_exec(self, pid: int, name: str) -> None:
        """Wait until the process runs the program of that name."""
        poll(lambda: comm(pid) == name)

    def worker(self, name: str, other_than: int = 0) -> int:
        """A child that runs that program, found without the log."""
        found: list[int] = poll(lambda: [pid for pid in self.children() if pid != other_than and comm(pid) == name])
        return found[0]

    def all(self, event: str, **fields: Any) -> list[Event]:
        return [e for e in self.events if e.get("event") == event and all(e.get(k) == v for k, v in fields.items())]

    def wait(self, timeout: float = 15) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + timeout
        watch = os.pidfd_open(self.process.pid)
        try:
            streams = [watch] if self.out < 0 else [watch, self.out]
            while True:
                ready = readable(streams, deadline)
                if not ready:
                    raise TimeoutError(f"it did not end after:\n{self.story()}")
                if self.out in ready:
                    if not self.read(deadline):
                        streams.remove(self.out)
                elif watch in ready:
                    return self.process.wait()
        finally:
            os.close(watch)

    def stop(self, signum: int = signal.SIGTERM, timeout: float = 15) -> tuple[int, float]:
        """Send the signal; the exit code and the seconds until it came."""
        self.send(signum)
        began = time.monotonic()
        code = self.wait(timeout)
        return code, time.monotonic() - began

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._stderr.close()


@pytest.fixture(scope="session", autouse=True)
def _adopt_orphans() -> None:
    """What a master leaves behind comes to the tests, and so is seen."""
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


@pytest.fixture
def start(entrypoint: str, open_path: Path) -> Iterator[Start]:
    """`start(config, ...)` runs a configuration, `start(args=[...])` any command line."""
    masters: list[Master] = []

    def begin(
        config: str | None = None,
        *,
        args: list[str] | None = None,
        wrap: tuple[str, ...] = (),
        pid1: bool = False,
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> Master:
        words = list(args or [])
        if config is not None:
            path = open_path / "config.yaml"
            path.write_text(config)
            words = ["-c", str(path), *words]
        if words[:1] == ["-c"] and words[1:]:  # tests run side by side, and the usual places are one
            file = open_path / words[1]
            text = " ".join([file.read_text(errors="replace") if file.is_file() else "", *words])
            for part in ("observer", "control"):
                if part not in text:
                    words[2:2] = ["--set", f"{part}.enabled=false"]
        base = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ENTRYPOINT_", "PYTEST"))}
        argv = [*(PID1 if pid1 else ()), *wrap, entrypoint, "run", *words]
        masters.append(Master(argv, env={**base, **WORKER_ENV, **(env or {})}, **{"cwd": open_path, **options}))
        return masters[-1]

    yield begin
    orderly = all(m.process.poll() is not None for m in masters)
    stories = "\n".join(m.story() for m in masters) if orderly else ""
    for master in masters:
        master.close()
    survivors = {pid: what for pid, what in descendants(os.getpid()).items() if not what.startswith("Z")}
    while left := descendants(os.getpid()):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        for pid in children(os.getpid()):
            os.waitpid(pid, 0)
    if orderly:
        assert not survivors, f"processes outlived their master:\n{survivors}\n{stories}"
        assert "Traceback" not in stories
        assert '"bug"' not in stories


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str, str], str]:
    """`script(name, text)` makes an executable file."""

    def make(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    return make
