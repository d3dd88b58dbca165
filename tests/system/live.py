"""What may be asked of a running master, and who of its workers was there at which moment."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Self

from tests.system.conftest import alive, comm, poll

if TYPE_CHECKING:
    from tests.system.conftest import Event, Master, Start

FAST = "ready: {after: 30ms}, restart: {min_uptime: 150ms}"  # a rollout has come through when its youngest has, too

# Speaks sd_notify(3), as much of it as it is told to: `ready`, `beat`; `dies` of an alarm.
SPEAKER = f"""#!{sys.executable} -S
import os, select, signal, socket, sys
print(os.path.basename(sys.argv[0]), "up", flush=True)
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect("\\0" + os.environ["NOTIFY_SOCKET"][1:])
if "ready" in sys.argv:
    sock.send(b"READY=1")
if "dies" in sys.argv:
    signal.setitimer(signal.ITIMER_REAL, 0.2)
while True:
    select.select([], [], [], 0.1)
    if "beat" in sys.argv:
        sock.send(b"WATCHDOG=1")
"""


class Live:
    """A master, its configuration file and its control socket."""

    def __init__(self, start: Start, entrypoint: str, folder: Path) -> None:
        self._start = start
        self._entrypoint = entrypoint
        self.socket = folder / "c.sock"
        self.file = folder / "config.yaml"
        self.master: Master

    def text(self, config: str) -> str:
        return f"control: {{socket: {self.socket}}}\n{dedent(config)}"

    def start(self, config: str, **options: Any) -> Master:
        self.master = self._start(self.text(config), **options)
        return self.master

    def start_file(self, path: Path) -> Master:
        self.file = path
        self.master = self._start(args=["-c", str(path)])
        return self.master

    def write(self, config: str) -> None:
        """As an editor does it: the file is there at any time, and never half written."""
        new = self.file.with_name(".new")
        new.write_text(self.text(config))
        new.rename(self.file)

    def reach(self) -> socket.socket:
        """A connection to the master, as soon as it takes one."""

        def connect() -> bool:
            try:
                sock.connect(str(self.socket))
            except OSError:
                return False
            return True

        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        poll(connect)
        return sock

    def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        """The master's first answer to a request."""
        with self.reach() as sock:
            sock.sendall(json.dumps({"ask": what, **fields}).encode() + b"\n")
            answer: dict[str, Any] = json.loads(sock.makefile().readline())
            return answer

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("status")["status"]
        return found

    def pool(self, name: str = "web") -> dict[str, Any]:
        found: dict[str, Any] = self.status()["pools"][name]
        return found

    def pids(self, name: str = "web") -> list[int]:
        """Of all its workers, by slot."""
        return [w["pid"] for w in self.pool(name)["workers"]]

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a command that speaks to the master."""
        self.reach().close()
        argv = [self._entrypoint, *words, "--socket", str(self.socket)]
        return subprocess.Popen(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *words: str) -> tuple[int, str, str]:
        """The exit code of a command, and what it wrote."""
        return end(self.begin(*words))

    def settled(self, name: str = "web", *, size: int) -> list[int]:
        """Wait until a pool has exactly that many workers, all of its generation and ready; their pids."""

        def settled() -> bool:
            pool.update(self.pool(name))
            workers = pool["workers"]
            good = all((w["state"], w["generation"]) == ("ready", pool["generation"]) for w in workers)
            return good and len(workers) == size and pool["rollout"] is None

        pool: dict[str, Any] = {}
        poll(settled, timeout=20)
        return [w["pid"] for w in pool["workers"]]


def started(master: Master, count: int, pool: str = "web") -> list[int]:
    """The pids of so many workers, when they are ready."""
    return [master.wait_for("worker_ready", pool=pool)["pid"] for _ in range(count)]


def sleep(seconds: int, more: str = FAST) -> str:
    """A pool that does nothing for so long."""
    return f"{{command: [sleep, '{seconds}'], {more}}}"


def command(pid: int) -> str:
    """What the process runs."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def reloaded(live: Live, config: str) -> None:
    """Have another configuration take effect, rollouts included."""
    live.write(config)
    code, _, error = live.run("reload", "--wait")
    assert code == 0, error


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def bounds(events: list[Event], pool: str = "web") -> tuple[int, int]:
    """The fewest ready and the most living workers from the first line about a rollout to the last."""
    living: set[int] = set()
    ready: set[int] = set()
    seen: list[tuple[int, int]] = []
    rolling = False
    for line in (e for e in events if e.get("pool") == pool):
        event = line["event"]
        if event == "worker_started":
            living.add(line["pid"])
        elif event == "worker_ready":
            ready.add(line["pid"])
        elif event == "worker_exited":
            living.discard(line["pid"])
        if event in ("worker_stopping", "worker_exited"):
            ready.discard(line["pid"])
        if rolling or event == "rollout_started":
            seen.append((len(ready), len(living)))
        rolling = event == "rollout_started" or (rolling and event != "rollout_completed")
    return min(r for r, _ in seen), max(n for _, n in seen)


class Census:
    """The most processes of a name that a process has been seen to have at a time."""

    def __init__(self, master: Master, name: str) -> None:
        self._pid = master.pid
        self._children = master.children
        self._name = name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count)
        self.most = 0

    def _count(self) -> None:
        while not self._over.wait(0.003):
            self.most = max(self.most, sum(comm(p) == self._name and alive(p) for p in self._children()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
