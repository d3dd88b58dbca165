"""A running monitor, driven over a socketpair as the master does it, and processes for it to look at."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import entrypoint
from entrypoint.config.environment import Identity
from entrypoint.config.spec import Probe, Process
from entrypoint.monitor.messages import Follow, Forget, Loaded, Message, Watch, encode

Line = dict[str, Any]
WORKER = Process(("worker",), "worker")
WEB_0 = Identity("web", 0, 1)

# The way of entrypoint/__main__.py: without site, with our packages and those that it needs.
START = """
import os, sys
os.dup2({fd}, 3, False)
if {fd} != 3: os.close({fd})
sys.path += {path!r}
if {hidden!r}:
    from entrypoint.monitor import proc
    proc._CALLS.clear()  # as on a processor that it does not know
from entrypoint.monitor.main import main
from entrypoint.monitor.timing import Timing
sys.exit(main(Timing(**{timing!r})))
"""


# The command itself, as the master executes it.
EXECUTE = """
import os, sys
os.dup2({fd}, 3)
os.execv(sys.executable, [sys.executable, "-I", "-S", {command!r}, "monitor"])
"""


def folders() -> list[str]:
    places = []
    for name in ("entrypoint", "h11", "inotify_simple"):
        spec = find_spec(name)
        assert spec
        assert spec.origin
        place = Path(spec.origin).parent
        places.append(str(place.parent if spec.submodule_search_locations else place))
    return list(dict.fromkeys(places))


class Monitor:
    """A monitor that was started, and the master's end of its channel."""

    def __init__(
        self,
        wrap: tuple[str, ...] = (),
        timing: dict[str, float] | None = None,
        *,
        hidden_calls: bool = False,
        command: bool = False,
        **options: Any,
    ) -> None:
        ours, theirs = socket.socketpair()
        code = START.format(fd=theirs.fileno(), path=folders(), timing=timing or {}, hidden=hidden_calls)
        if command:
            code = EXECUTE.format(fd=theirs.fileno(), command=str(Path(entrypoint.__file__).with_name("__main__.py")))
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the monitor
        self.process = subprocess.Popen(
            [*wrap, sys.executable, "-I", "-S", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=self.errors,
            stderr=self.errors,
            pass_fds=[theirs.fileno()],
            **options,
        )
        theirs.close()
        self.channel = ours
        self.lines: list[Line] = []
        self._rest = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, message: Message) -> None:
        self.channel.sendall(encode(message))

    def watch(
        self,
        probe: Probe | None = None,
        *,
        serial: int = 1,
        kind: str = "ready",
        pid: int | None = None,
        inodes: tuple[int, ...] = (),
        process: Process = WORKER,
        identity: Identity = WEB_0,
    ) -> None:
        pid = os.getpid() if pid is None else pid
        self.send(Watch(serial, pid, kind, probe, inodes, 0.0, process, identity))

    def forget(self, serial: int = 1, kind: str = "ready") -> None:
        self.send(Forget(serial, kind))

    def follow(self, path: Path, sha256: str = "") -> None:
        self.send(Follow(str(path), sha256))

    def loaded(self, sha256: str) -> None:
        self.send(Loaded(sha256))

    def wait_for(self, saw: str, timeout: float = 10, **fields: Any) -> Line:
        """The next line with these fields; what comes before it is kept for later."""
        deadline = time.monotonic() + timeout
        while True:
            for line in self.lines:
                if line["saw"] == saw and all(line.get(k) == v for k, v in fields.items()):
                    self.lines.remove(line)
                    return line
            self.read(deadline - time.monotonic())

    def read(self, timeout: float) -> None:
        if not select.select([self.channel], [], [], max(0.0, timeout))[0]:
            raise TimeoutError(f"nothing more came after {self.lines}\n{self.story()}")
        piece = self.channel.recv(1 << 16)
        if not piece:
            raise EOFError(f"it ended after {self.lines}\n{self.story()}")
        *lines, self._rest = (self._rest + piece).split(b"\n")
        assert all(len(line) < 1024 for line in lines)
        self.lines += [json.loads(line) for line in lines]

    def hears_nothing(self, seconds: float) -> None:
        """Nothing comes for so long, and nothing is left from before."""
        assert not self.lines
        with pytest.raises(TimeoutError):
            self.read(seconds)

    def story(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode()

    def hang_up(self, timeout: float = 10) -> int:
        self.channel.close()
        return self.process.wait(timeout)

    def close(self) -> str:
        """End it; returns what is wrong with it."""
        self.channel.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "it did not end with its channel"
        finally:
            story = self.story()
            self.errors.close()
        return story


StartMonitor = Callable[..., Monitor]


@pytest.fixture
def start(open_path: Path) -> Iterator[StartMonitor]:
    """`start(...)` starts a monitor; each has to have written nothing and to end with its channel."""
    monitors: list[Monitor] = []

    def begin(*wrap: str, **options: Any) -> Monitor:
        monitors.append(Monitor(wrap, **options))
        return monitors[-1]

    yield begin
    wrong = [monitor.close() for monitor in monitors]
    assert not any(wrong), wrong


@pytest.fixture
def monitor(start: StartMonitor) -> Monitor:
    return start()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`run(argv, ...)` starts a process that ends with the test, and its group with it."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        options = {"start_new_session": True, "stdin": subprocess.DEVNULL, "cwd": tmp_path, **options}
        processes.append(subprocess.Popen(argv, **options))
        return processes[-1]

    yield begin
    for process in processes:
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            pass
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
