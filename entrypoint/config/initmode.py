"""The configuration of `entrypoint run -- COMMAND` without a file. On the fastest path: no YAML, no validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.config.errors import EXIT_CONFIG, ConfigError
from entrypoint.config.spec import Control, Observer, Pool, Process, Ready, Restart, Shutdown, Spec, Stop

if TYPE_CHECKING:
    from collections.abc import Mapping

KUBERNETES_DRAIN_DELAY = 5.0
MAX_WORKERS = 10_000

_PLAIN = "@%+=:,./-_"


def init_spec(command: tuple[str, ...], workers: int | None, environ: Mapping[str, str]) -> Spec:
    """One pool `main` for a command line.

    One worker (or no number): init mode, where the worker has the master's terminal, descriptors and environment,
    is not restarted and not hurried; `foreground` also means that `$(NAME)` in its command is not expanded.
    More workers: a pool with the defaults of a configuration file. Raises ConfigError.
    """
    if not command or not command[0]:
        raise ConfigError(("cannot run: the command is empty",), EXIT_CONFIG)
    process = Process(tuple(command), quote(command))
    if workers is None or workers == 1:
        pool = Pool(
            "main",
            process,
            ready=Ready(after=0.0),
            boot_timeout=0.0,
            stop=Stop(timeout=None, quiesce=0.0, delay=0.0),
            restart=Restart(policy="never"),
            foreground=True,
        )
        return Spec((pool,), observer=Observer(enabled=False), control=Control(enabled=False))
    if not 1 <= workers <= MAX_WORKERS:
        raise ConfigError((f"cannot run: --workers is out of range 1 to {MAX_WORKERS}: {workers}",), EXIT_CONFIG)
    return Spec((Pool("main", process, workers),), shutdown=Shutdown(drain_delay=auto_drain_delay(environ)))


def auto_drain_delay(environ: Mapping[str, str]) -> float:
    """Seconds of `drain_delay: auto`: only Kubernetes goes on sending requests after SIGTERM."""
    return KUBERNETES_DRAIN_DELAY if environ.get("KUBERNETES_SERVICE_HOST") else 0.0


def quote(command: tuple[str, ...]) -> str:
    """A command as one would type it; `shlex` costs more to import than all of this module."""
    return " ".join(
        word if word and all(c in _PLAIN or (c.isascii() and c.isalnum()) for c in word) else _quoted(word)
        for word in command
    )


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\"'\"'") + "'"
