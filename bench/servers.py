"""The web servers whose workers are replaced under load: one class each, with two workers of the application in `apps`.

They get their own defaults, except where a comment says what was changed and why.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from .systems import HERE, Ours, Program
from .traffic import HOST

APPS = HERE / "apps"
WORKERS = 2
_SETTLE = 60.0  # seconds that a change may take
_GLANCE = 0.1  # seconds between two looks at what has become of it


class Server(Program):
    """A server with its own way to replace its workers: HUP to the first process."""

    reload = "HUP"
    pip = True
    helpers: tuple[str, ...] = ()  # words of the command lines of processes that a reload leaves alone

    def command(self, directory: Path, port: int) -> list[str]:
        """Write into `directory` what is needed; return the command."""
        raise NotImplementedError

    def lasting(self, master: int, pids: set[int]) -> set[int]:
        """Those of the processes that a reload leaves alone."""
        return {pid for pid in pids if pid == master or any(word in _command_line(pid) for word in self.helpers)}


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


class Gunicorn(Server):
    """gunicorn with threads. The control socket, which is not used, would be in the home directory."""

    name = program = package = "gunicorn"

    def command(self, directory: Path, port: int) -> list[str]:  # noqa: ARG002 - needs no file
        return [
            *self.executable(),
            *("--workers", str(WORKERS), "--threads", "4", "--bind", f"{HOST}:{port}", "--chdir", str(APPS)),
            *("--no-control-socket", "--log-level", "warning", "app:wsgi"),
        ]


class Uvicorn(Server):
    """uvicorn with its own process manager."""

    name = program = package = "uvicorn"
    helpers = ("resource_tracker",)

    def command(self, directory: Path, port: int) -> list[str]:  # noqa: ARG002 - needs no file
        return [
            *self.executable(),
            *("--workers", str(WORKERS), "--host", HOST, "--port", str(port), "--app-dir", str(APPS)),
            *("--no-access-log", "--log-level", "warning", "app:asgi"),
        ]


class Granian(Server):
    """granian. It waits 3.5 s between the workers that it replaces."""

    name = program = package = "granian"
    helpers = ("resource_tracker",)

    def command(self, directory: Path, port: int) -> list[str]:  # noqa: ARG002 - needs no file
        return [
            *self.executable(),
            *("--interface", "asgi", "--workers", str(WORKERS), "--host", HOST, "--port", str(port)),
            *("--working-dir", str(APPS), "--no-ws", "--log-level", "warning", "app:asgi"),
        ]


class Managed(Ours, Server):
    """A server under this project, one process a worker.

    `min_uptime: 0s` says that no life is too short: else a rollout is called complete only when its last worker has
    lived for 10 s.
    """

    helpers = ("/entrypoint/__main__.py",)
    reuse_port = False
    worker: Program | None = None  # what a worker runs, if that has to be installed

    def worker_command(self) -> list[str]:
        """The command of one worker, which finds its socket at descriptor 3."""
        raise NotImplementedError

    def command(self, directory: Path, port: int) -> list[str]:
        pool: dict[str, Any] = {
            "command": self.worker_command(),
            "workers": WORKERS,
            "cwd": str(APPS),
            "sockets": ["http"],
            "ready": {"when": "accepting"},
            "restart": {"min_uptime": "0s"},
        }
        config = {
            "sockets": {"http": {"bind": f"{HOST}:{port}", "reuse_port": self.reuse_port}},
            "control": {"socket": str(directory / "control")},
            "observer": {"enabled": False},
            "pools": {"web": pool},
        }
        (directory / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
        return [*self.executable(), "run", "-c", str(directory / "config.yaml")]

    # -- what is asked of it -----------------------------------------------------------------------------------

    def ask(self, directory: Path, what: str, *more: str) -> str:
        """Run a control command; returns what it prints. Raises RuntimeError when it fails."""
        command = [*self.executable(), what, "--socket", str(directory / "control"), *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"entrypoint {what} {' '.join(more)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def workers(self, directory: Path) -> list[dict[str, Any]]:
        """Its workers, as `entrypoint status` tells."""
        found: list[dict[str, Any]] = json.loads(self.ask(directory, "status", "--json"))["pools"]["web"]["workers"]
        return found

    def settle(self, directory: Path, count: int, without: int = 0) -> None:
        """Wait until there are so many workers, all of them ready, none with the pid `without`. Raises TimeoutError."""
        deadline = time.monotonic() + _SETTLE
        while True:
            found = self.workers(directory)
            if [w["state"] for w in found] == ["ready"] * count and all(w["pid"] != without for w in found):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {count} ready workers after {_SETTLE:g} s: {found}")
            time.sleep(_GLANCE)

    def roll(self, directory: Path) -> None:
        """Replace all workers."""
        self.ask(directory, "restart", "web", "--wait")
        self.settle(directory, WORKERS)

    def scale(self, directory: Path) -> None:
        """One worker more, or one fewer than that."""
        count = WORKERS + 1 if len(self.workers(directory)) == WORKERS else WORKERS
        self.ask(directory, "scale", "web", str(count))
        self.settle(directory, count)

    def stop_one(self, directory: Path) -> None:
        """Stop the oldest worker, which is replaced."""
        oldest = self.workers(directory)[0]
        self.ask(directory, "signal", f"web/{oldest['slot']}", "TERM")
        self.settle(directory, WORKERS, without=oldest["pid"])


class ManagedUvicorn(Managed):
    """uvicorn with a socket for each worker."""

    name = "entrypoint + uvicorn"
    reuse_port = True
    worker = Uvicorn()

    def worker_command(self) -> list[str]:
        return [*self.worker.executable(), "app:asgi", "--fd", "3", "--no-access-log", "--log-level", "warning"]


class ManagedGunicorn(Managed):
    """gunicorn with a shared socket."""

    name = "entrypoint + gunicorn"
    worker = Gunicorn()

    def worker_command(self) -> list[str]:
        options = ("--workers", "1", "--threads", "4", "--no-control-socket", "--log-level", "warning")
        return [*self.worker.executable(), *options, "app:wsgi"]


class ManagedGunicornReusePort(ManagedGunicorn):
    """gunicorn with a socket for each worker."""

    name = "entrypoint + gunicorn, reuse_port"
    reuse_port = True


class ManagedServer(Managed):
    """A server in C that finishes what it has accepted, with a shared socket: as fast as it gets."""

    name = "entrypoint + server.c"

    def __init__(self, command: str, server: Path) -> None:
        super().__init__(command)
        self._server = server

    def worker_command(self) -> list[str]:
        return [str(self._server)]
