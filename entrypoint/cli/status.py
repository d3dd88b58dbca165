"""`entrypoint status`: what the master answers, as tables or as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from entrypoint.cli import client
from entrypoint.cli.arguments import parse
from entrypoint.cli.common import cut, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

INTERVAL = 1.0  # seconds between two looks with --watch
EXIT_TERMINATED = 128 + signal.SIGTERM
WAITING = "waiting for the master"

# xterm's control sequences, which every terminal of the last decades knows.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the alternate screen, without a cursor
HOME, END_OF_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def main(argv: list[str]) -> int:
    """Print the status; returns the exit code.

    Raises OutputError, and KeyboardInterrupt at Ctrl-C, the screen restored.
    """
    options = parse("status", argv)
    if isinstance(options, int):
        return options
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a status may have characters that the terminal has not
    if options.watch:
        return client.guarded(lambda: watch(options.socket, options.pool or "", as_json=options.json))
    return client.guarded(lambda: show(options.socket, options.pool or "", as_json=options.json))


def show(socket: str | None, pool: str, *, as_json: bool) -> int:
    """Print the status once. Raises ControlError."""
    status = fetch(socket, pool)
    write(json.dumps(status, indent=2) + "\n" if as_json else _tables(status, terminal()[0]))
    return 0


def fetch(socket: str | None, pool: str = "") -> dict[str, Any]:
    """The status of all pools or of one, the workers' memory filled in. Raises ControlError."""
    with client.Connection(socket) as connection:
        status = connection.ask({"ask": "status"}).get("status")
        pid = connection.pid
    if not isinstance(status, dict) or not isinstance(status.get("pools"), dict):
        raise client.ControlError("cannot read the answer: no status in it")
    if pool:
        if pool not in status["pools"]:
            raise client.ControlError(f"cannot show {pool}: no such pool")
        status["pools"] = {pool: status["pools"][pool]}
    if status.get("pid") == pid:  # else its pids are of another namespace, and mean other processes here
        for one in status["pools"].values():
            for worker in one["workers"]:
                if worker.get("resident_memory_bytes") is None:
                    worker["resident_memory_bytes"] = resident_memory(worker.get("pid"))
    return status


def resident_memory(pid: object) -> int | None:
    """Bytes of memory that a process has resident; None when it cannot be seen."""
    if not isinstance(pid, int):
        return None
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, IndexError, ValueError):
        return None


def watch(socket: str | None, pool: str, *, as_json: bool) -> int:
    """Print the status every second, whatever happens to the master. Raises ControlError."""
    full = sys.stdout.isatty() and not as_json
    with _screen() if full else _ending():
        first = True
        while True:
            try:
                status = fetch(socket, pool)
            except client.UnreachableError as error:
                text = json.dumps({"error": str(error)}) + "\n" if as_json else f"{WAITING}: {_cause(error)}\n"
            else:
                text = json.dumps(status) + "\n" if as_json else _tables(status, terminal()[0])
            if full:
                lines = [cut(line, terminal()[0]) for line in text.splitlines()[: terminal()[1] or None]]
                write(HOME + "\n".join(line + END_OF_LINE for line in lines) + CLEAR_BELOW)
            else:
                write(text if first or as_json else f"\n{text}")
            first = False
            time.sleep(INTERVAL)


def _cause(error: Exception) -> str:
    return str(error).removeprefix("cannot reach the master: ")


@contextmanager
def _ending() -> Iterator[None]:
    """TERM ends the block like any other exit, so that what it has changed is restored."""

    def end(_signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _screen() -> Iterator[None]:
    """The alternate screen of the terminal."""
    with _ending():
        write(ENTER)
        try:
            yield
        finally:
            write(LEAVE)


def terminal() -> tuple[int, int]:
    """Columns and lines of the terminal on stdout; 0 where there is none."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):  # not a terminal; not a file (tests)
        return 0, 0
    return size.columns, size.lines


def _tables(status: dict[str, Any], width: int) -> str:
    from entrypoint.cli.table import render  # the table library: not for --json

    return render(status, width, time.time())
