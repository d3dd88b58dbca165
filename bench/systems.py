"""The systems that are measured: one class each, that writes its configuration and names the command to run.

Every system gets the same program as its worker (gunicorn excepted, which forks Python workers), the environment
variable BENCH_FIFO to pass on, and its own defaults except where a comment says what was changed and why.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from .namespace import BenchError

HERE = Path(__file__).resolve().parent
ALONE = {"observer": {"enabled": False}}  # where what is measured is something else
OBSERVED = {"observer": {"bind": ":0"}}  # as a user has it, at a port that is free


def find(program: str) -> str | None:
    """The path of a program: beside the running interpreter (the same virtual environment), else on PATH."""
    beside = Path(sys.executable).parent / program
    return str(beside) if beside.exists() else shutil.which(program)


class Program:
    """Something to measure that is started by one executable."""

    name: str
    program: str
    package: str  # what to install when the program is missing
    pip: bool = False  # a Python package; otherwise Debian's

    def executable(self) -> list[str]:
        """The first words of the command. Raises BenchError if the program is not installed."""
        path = find(self.program)
        if path is None:
            raise BenchError(f"cannot find {self.program}")
        return [path]

    def installed(self) -> bool:
        """Whether the program is there."""
        return find(self.program) is not None


class System(Program):
    """A supervisor of N workers."""

    stop_signal: int = signal.SIGTERM
    exit_code: int = 0  # after that signal; negative: ended by a signal
    start_timeout: float = 60.0
    stop_timeout: float = 60.0

    once_from: int = 1_000_000  # with so many workers it takes too long to be measured more than once

    def configure(self, directory: Path, worker: Path, count: int) -> list[str]:
        """Write into `directory` what is needed to run `count` workers; return the command."""
        raise NotImplementedError


class Ours(Program):
    """This project's command, or another way to start it."""

    program = "entrypoint"
    package = "."
    pip = True

    def __init__(self, command: str = "") -> None:
        self._command = shlex.split(command)

    def executable(self) -> list[str]:
        return self._command or super().executable()

    def installed(self) -> bool:
        return bool(self._command) or super().installed()


class Entrypoint(Ours, System):
    """This project, in pool mode.

    A worker that is alive is ready, and no life is too short, so that a worker may be killed a moment after its
    start and still be replaced at once: what `startsecs=0` is to supervisord.
    """

    name = "entrypoint"

    def configure(self, directory: Path, worker: Path, count: int) -> list[str]:
        pool = {
            "command": [str(worker)],
            "workers": count,
            "ready": {"when": "alive", "after": "0s"},
            "restart": {"min_uptime": "0s"},
        }
        config = directory / "config.yaml"
        config.write_text(json.dumps({**OBSERVED, "pools": {"web": pool}}))  # JSON is YAML
        return [*self.executable(), "run", "-c", str(config)]


class Gunicorn(System):
    """gunicorn with sync workers. It pauses at random between forks: 1,000 workers are measured once."""

    name = "gunicorn"
    program = "gunicorn"
    package = "gunicorn"
    pip = True
    start_timeout = 120.0
    once_from = 500

    def configure(self, directory: Path, worker: Path, count: int) -> list[str]:  # noqa: ARG002 - it forks its own
        module = "gunicorn_worker"
        return [
            *self.executable(),
            *("--config", str(HERE / f"{module}.py"), "--chdir", str(HERE)),
            *("--bind", f"unix:{directory}/http.sock", "--workers", str(count), f"{module}:app"),
        ]


class Supervisord(System):
    """supervisord in the foreground, output of workers not captured, a worker that is started counts as up."""

    name = "supervisord"
    program = "supervisord"
    package = "supervisor"
    pip = True
    once_from = 500

    def configure(self, directory: Path, worker: Path, count: int) -> list[str]:
        config = directory / "supervisord.conf"
        # minfds: three pipes a worker do not fit into the default of 1,024 descriptors.
        config.write_text(
            "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
            f"pidfile={directory}/supervisord.pid\nminfds={max(1024, 4 * count + 100)}\n"
            f"[program:worker]\ncommand={worker}\nnumprocs={count}\nprocess_name=%(process_num)04d\n"
            "startsecs=0\nautorestart=true\nstdout_logfile=NONE\nstderr_logfile=NONE\n"
        )
        return [*self.executable(), "--configuration", str(config)]


class Circus(System):
    """circusd with one watcher, its sockets in the directory."""

    name = "circus"
    program = "circusd"
    package = "circus"
    pip = True

    def configure(self, directory: Path, worker: Path, count: int) -> list[str]:
        config = directory / "circus.ini"
        config.write_text(
            "[circus]\nwarmup_delay = 0\n"
            f"endpoint = ipc://{directory}/endpoint\npubsub_endpoint = ipc://{directory}/pubsub\n"
            f"[watcher:worker]\ncmd = {worker}\nnumprocesses = {count}\nwarmup_delay = 0\ncopy_env = True\n"
        )
        return [*self.executable(), str(config)]


class S6(System):
    """s6-svscan: one s6-supervise a worker; `run` is the worker itself, without a shell."""

    name = "s6-svscan"
    program = "s6-svscan"
    package = "s6"

    def configure(self, directory: Path, worker: Path, count: int) -> list[str]:
        scan = _service_directories(directory, worker, count)
        usage = subprocess.run([*self.executable(), "--help"], capture_output=True, text=True, check=False)
        limit = "-C" if " -C " in usage.stdout + usage.stderr else "-c"  # renamed in newer versions
        return [*self.executable(), limit, str(count + 10), str(scan)]


class Runsvdir(System):
    """runsvdir: one runsv a worker. TERM would leave them all behind; HUP is its way to stop them."""

    name = "runsvdir"
    program = "runsvdir"
    package = "runit"
    stop_signal = signal.SIGHUP
    exit_code = 111
    once_from = 500

    def configure(self, directory: Path, worker: Path, count: int) -> list[str]:
        return [*self.executable(), "-P", str(_service_directories(directory, worker, count))]


def _service_directories(directory: Path, worker: Path, count: int) -> Path:
    """One directory a worker, in the layout that s6 and runit share; return their parent."""
    scan = directory / "scan"
    for number in range(count):
        service = scan / f"{number:04d}"
        service.mkdir(parents=True)
        (service / "run").symlink_to(worker)
    return scan


class Init(Program):
    """A PID 1 for one command."""

    def command(self, directory: Path, argv: list[str]) -> list[str]:  # noqa: ARG002 - needs no file
        """The command that runs `argv` under this init."""
        return [*self.executable(), "--", *argv]


class Tini(Init):
    """tini, of which most containers have a copy."""

    name = program = package = "tini"


class DumbInit(Init):
    """dumb-init."""

    name = program = package = "dumb-init"


class Catatonit(Init):
    """catatonit, podman's choice."""

    name = program = package = "catatonit"


class EntrypointInit(Ours, Init):
    """This project in init mode."""

    name = "entrypoint (init)"

    def command(self, directory: Path, argv: list[str]) -> list[str]:  # noqa: ARG002 - needs no file
        return [*self.executable(), "run", "--init", "--", *argv]


class EntrypointPool(EntrypointInit):
    """This project as PID 1 in pool mode, with a pool that ends with its worker."""

    name = "entrypoint (pool)"

    def command(self, directory: Path, argv: list[str]) -> list[str]:
        pool = {"command": argv, "ready": {"when": "alive", "after": "0s"}, "restart": {"policy": "never"}}
        config = directory / "config.yaml"
        config.write_text(json.dumps({**OBSERVED, "pools": {"storm": pool}}))
        return [*self.executable(), "run", "-c", str(config)]


class Bare(Init):
    """Not an init: the interpreter that this project runs on, with nothing to do. How fast it can be at best."""

    name = "python"
    program = package = "python3"

    def command(self, directory: Path, argv: list[str]) -> list[str]:  # noqa: ARG002 - it runs nothing
        return [sys.executable, "-I", "-S", "-c", "pass"]


def require(programs: list[Program]) -> None:
    """Raise BenchError, with the commands that install what is missing, unless every program is there."""
    missing = [program for program in programs if not program.installed()]
    if not missing:
        return
    lines = ["cannot find " + ", ".join(dict.fromkeys(program.program for program in missing))]
    ours = any(program.package == "." for program in missing)
    pip = sorted({program.package for program in missing if program.pip and program.package != "."})
    debian = sorted({program.package for program in missing if not program.pip})
    if ours or pip:
        lines.append(f"  {sys.executable} -m pip install " + ("'.[bench]'" if ours else " ".join(pip)))
    if debian:
        lines.append("  apt-get install -y " + " ".join(debian))
    raise BenchError("\n".join(lines))
