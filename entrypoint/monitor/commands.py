"""Commands that are run as probes, without a thread or a blocking wait for any of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from entrypoint.config.spec import Process

MAX_OUTPUT = 1024  # bytes that are kept; the rest is read and thrown away


class Commands:
    """Runs commands, as many at once as there are. Needs a running loop, and its SIGCHLD."""

    def __init__(self) -> None:
        self._running: dict[int, _Running] = {}
        self._turn = asyncio.Lock()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._collect)

    async def run(self, argv: Sequence[str], process: Process, environ: Mapping[str, str], limit: float) -> str:
        """Run a command with the user, directory and umask of `process`; returns why it failed, or nothing.

        It has a session of its own, and what is left of that when it ends or `limit` seconds are over is killed.
        Raises TimeoutError, and OSError or ValueError when the command cannot be started.
        """
        child = None
        try:
            async with self._turn:
                child = self._start(argv, process, environ)
                await asyncio.sleep(0)  # between two forks, everybody else has a turn
            async with asyncio.timeout(limit):
                await child.ended.wait()
        finally:
            if child is not None:
                child.kill()
                child.close()
        return child.failure()

    def kill(self) -> None:
        """SIGKILL every command that runs, and what it has started."""
        for child in self._running.values():
            child.kill()

    def _start(self, argv: Sequence[str], process: Process, environ: Mapping[str, str]) -> _Running:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            os.fchmod(writer, 0o622)  # a program of another user may open /dev/stderr anew
            popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                env=environ,
                cwd=process.cwd or None,
                umask=-1 if process.umask is None else process.umask,
                start_new_session=True,
                **_credentials(process),
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        child = self._running[popen.pid] = _Running(popen, reader)
        return child

    def _collect(self) -> None:
        """Collect those that have ended; their pid, which is their group as well, is nobody else's until then."""
        for pid, child in list(self._running.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                child.kill()
                child.popen.wait()
                child.ended.set()
                del self._running[pid]


class _Running:
    """A command and what it has said so far."""

    def __init__(self, popen: subprocess.Popen[bytes], reader: int) -> None:
        self.popen = popen
        self.ended = asyncio.Event()
        self._reader = reader
        self._output = b""
        os.set_blocking(reader, False)
        asyncio.get_running_loop().add_reader(reader, self._read)

    def kill(self) -> None:
        """SIGKILL its session, unless its number may be somebody else's by now."""
        if self.popen.returncode is None:
            try:
                os.killpg(self.popen.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # a program with a user of its own may be out of reach
                pass

    def close(self) -> None:
        """Stop listening to it, whoever still holds the other end."""
        self._read()
        asyncio.get_running_loop().remove_reader(self._reader)
        os.close(self._reader)

    def failure(self) -> str:
        """How it ended, and what it said; nothing for success."""
        code = self.popen.returncode
        if code == 0:
            return ""
        said = self._output.decode(errors="replace").strip()
        how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
        return f"{how}: {said}" if said else how

    def _read(self) -> None:
        try:
            piece = os.read(self._reader, 1 << 16)
        except BlockingIOError:
            return
        self._output += piece[: MAX_OUTPUT - len(self._output)]
        if not piece:
            asyncio.get_running_loop().remove_reader(self._reader)


def _credentials(process: Process) -> dict[str, Any]:
    """Who the command runs as, the way the worker became it."""
    who = process.credentials
    if who is None or (os.getuid() == who.uid and os.getgid() == who.gid and os.getuid() != 0):
        return {}  # already there, and without the right to set what is set
    return {"user": who.uid, "group": who.gid, "extra_groups": who.groups}
