"""Probes: a question asked again and again, with Kubernetes' meaning of its fields."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Any, Protocol

from entrypoint.config.envfiles import EnvFileError
from entrypoint.config.environment import worker_environment
from entrypoint.config.expand import expand
from entrypoint.monitor.proc import gone

if TYPE_CHECKING:
    from entrypoint.config.spec import Probe
    from entrypoint.monitor.commands import Commands
    from entrypoint.monitor.messages import Watch


# That we are out of something says nothing about the worker.
_OUR_OWN = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN}


class NotAskedError(Exception):
    """A probe could not be asked, for a reason that is not the worker's."""


class Tell(Protocol):
    """Sends a line to the master."""

    def __call__(self, saw: str, **fields: Any) -> None:
        """`saw` is the kind of line."""


async def ask_again_and_again(watch: Watch, question: Question, tell: Tell) -> None:
    """Probe until the first success (ready) or until so many failures in a row (live)."""
    probe = question.probe
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(max(watch.after, probe.initial_delay))
    failures = 0
    said = ""
    while True:
        began = clock()
        asked = True
        try:
            reason = await question.ask()
        except NotAskedError as error:
            asked, reason = False, str(error)
        if not reason:
            if watch.kind == "ready":
                tell("ready", serial=watch.serial)
                return
            failures, said = 0, ""
        elif gone(watch.pid):
            return
        else:
            failures += asked
            enough = failures >= probe.failure_threshold
            if enough and watch.kind == "live":
                times = f", {failures} times in a row" if failures > 1 else ""
                tell("not_live", serial=watch.serial, reason=f"{question.name}: {reason}{times}")
                return
            # That a program which is not ready yet refuses some connections is not worth a word.
            if reason != said and (enough or watch.kind == "live"):
                tell("failing", serial=watch.serial, kind=watch.kind, reason=f"{question.name}: {reason}")
                said = reason
        await asyncio.sleep(began + probe.period - clock())


class Question:
    """A probe of one worker."""

    def __init__(self, probe: Probe, watch: Watch, commands: Commands) -> None:
        self.probe = probe
        self._process = watch.process
        self._identity = watch.identity
        self._commands = commands
        self._environ: dict[str, str] = {}
        shown = worker_environment({}, watch.process._replace(env=(), env_from=(), env_files=()), watch.identity)
        written = probe.display or (probe.exec.display if probe.exec is not None else probe.http or probe.tcp)
        self.name = expand(written, shown)  # which worker it is may be told; other variables may be secrets

    async def ask(self) -> str:
        """Ask once; returns why it failed, or nothing. Raises NotAskedError."""
        try:
            return await self._ask()
        except TimeoutError:
            return f"timed out after {self.probe.timeout:g}s"
        except EnvFileError as error:
            return str(error)
        except OSError as error:
            # The errors of asyncio's own making have a number, and a text that repeats it and the address.
            number = error.errno or 0
            reason = os.strerror(number).lower() if number > 0 else error.strerror or str(error)
            if number in _OUR_OWN:
                raise NotAskedError(f"cannot ask: {reason}") from None
            return reason
        except ValueError as error:  # what $(NAME) stands for makes no address or no argument
            return f"cannot ask: {error}" if not isinstance(error, UnicodeError) else "cannot ask: not a host name"

    async def _ask(self) -> str:
        probe = self.probe
        if probe.exec is not None:
            argv = [self._expand(word, needed=True) for word in probe.exec.argv]
            return await self._commands.run(argv, self._process, self._environ, probe.timeout)
        async with asyncio.timeout(probe.timeout):
            if probe.http:
                from entrypoint.monitor.http import get

                return await get(self._expand(probe.http))
            host, _, port = self._expand(probe.tcp).rpartition(":")
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.transport.abort()
            return ""

    def _expand(self, text: str, *, needed: bool = False) -> str:
        """Resolve $(NAME) by the worker's environment, which is made once: files may have changed since its start."""
        if not self._environ and (needed or "$" in text):
            self._environ = worker_environment(os.environ, self._process, self._identity)
        return expand(text, self._environ)
