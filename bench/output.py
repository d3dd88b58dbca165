"""Workers' output on its way to the container's: how fast, at what cost, and whether all of it arrives.

supervisord, with the workers' log on its own standard output, is what many images do today; it frames nothing.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import namespace
from .measure import Reports, activity, environment, tail, workspace
from .systems import ALONE, Ours, Program

if TYPE_CHECKING:
    from pathlib import Path

LINES = 500_000
KINDS = ("text", "json")
_TIMEOUT = 120.0
_NUMBER = re.compile(rb"GET /items/(\d{8}) ")


@dataclass
class Output:
    """What became of the lines of one worker."""

    system: str
    kind: str
    lines: int
    seconds: float | None = None  # until the worker had written them all
    cpu_ms: float | None = None  # of the process that reads them
    master_ms: float | None = None  # CPU of the master, where that is another one
    lost: int | None = None
    failure: str = ""


class Captor(Program):
    """Something that passes workers' output on."""

    def configure(self, path: Path, worker: list[str]) -> list[str]:
        """Write the configuration; return the command."""
        raise NotImplementedError

    def reader(self, master: int) -> int:
        """The process that reads the output."""
        return master


class OursJson(Ours, Captor):
    """This project, each line as a JSON object."""

    name = "entrypoint"

    def configure(self, path: Path, worker: list[str]) -> list[str]:
        config = path / "config.yaml"
        pools = {"web": {"command": worker, "output": "json"}}
        config.write_text(json.dumps({**ALONE, "control": {"enabled": False}, "pools": pools}))  # JSON is YAML
        return [*self.executable(), "run", "-c", str(config)]

    def reader(self, master: int) -> int:
        return namespace.find(b"logger", namespace.processes() - {master})


class SupervisordStdout(Captor):
    """supervisord with a program's log on its own standard output, as it is."""

    name = "supervisord"
    program = "supervisord"
    package = "supervisor"
    pip = True

    def configure(self, path: Path, worker: list[str]) -> list[str]:
        config = path / "supervisord.conf"
        config.write_text(
            "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
            f"pidfile={path}/supervisord.pid\n"
            f"[program:worker]\ncommand={' '.join(worker)}\n"
            "startsecs=0\nstdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n"
        )
        return [*self.executable(), "--configuration", str(config)]


def capture(captor: Captor, worker: Path, kind: str) -> Output:
    """One worker that writes all its lines as fast as they are taken."""
    result = Output(captor.name, kind, LINES)
    with workspace() as path:
        log, reports = path / "log", Reports(path / "fifo")
        try:
            argv = captor.configure(path, [str(worker), str(LINES), kind])
            master = namespace.spawn(argv, environment(BENCH_FIFO=str(path / "fifo")), log)
            deadline = time.monotonic() + _TIMEOUT
            times = reports.read(deadline)
            reader = captor.reader(master)
            before = [activity({pid})[1] for pid in (reader, master)]
            while len(times) < 2:
                times += reports.read(deadline)
            result.seconds = (times[1][1] - times[0][1]) / 1e9
            used = [(activity({pid})[1] - ns) / 1e6 for pid, ns in zip((reader, master), before, strict=True)]
            result.cpu_ms = used[0]
            result.master_ms = used[1] if reader != master else None
            namespace.stop(master, _TIMEOUT)
            result.lost = LINES - len(set(_NUMBER.findall(log.read_bytes())))
        except (TimeoutError, LookupError) as error:
            result.failure = f"{error}: {tail(log)[-200:]}"
        finally:
            reports.close()
    return result
