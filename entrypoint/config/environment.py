"""The environment of a worker, and of the commands that are run on its behalf."""

from __future__ import annotations

import os
from collections.abc import Mapping  # noqa: TC003 - loaded already
from typing import TYPE_CHECKING

from entrypoint.config.expand import expand, needs_expansion
from entrypoint.record import Record

if TYPE_CHECKING:
    from entrypoint.config.spec import Process

# Never passed on from what started the master: they speak of its own sockets and its own watchdog.
MASTERS_OWN = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Identity(Record):
    """Who a worker is."""

    pool: str
    slot: int
    generation: int


def worker_environment(
    base: Mapping[str, str], process: Process, identity: Identity, extra: Mapping[str, str] = {}
) -> dict[str, str]:
    """The variables of a worker that is started from `base`.

    `extra` is what the master tells it beside its identity: sockets, where to notify. The pool's own `env` comes
    last and may refer to everything else. Raises EnvFileError when a file of the pool's cannot be used.
    """
    environ = dict(base)
    for name in (*MASTERS_OWN, *process.unset):
        environ.pop(name, None)
    who = process.credentials
    if who is not None and who.name:
        environ["USER"] = environ["LOGNAME"] = who.name
    if who is not None and who.home:
        environ["HOME"] = who.home
    if process.cwd.startswith("/"):
        environ["PWD"] = os.path.normpath(process.cwd)
    elif process.cwd:  # the master's own is of another place, and where this one is nobody has to know
        environ.pop("PWD", None)
    if process.env_from or process.env_files:
        from entrypoint.config.envfiles import read_env_file, read_secret

        for path in process.env_from:
            environ.update(read_env_file(path))
        for name, path in process.env_files:
            environ[name] = read_secret(path)
    environ["ENTRYPOINT_POOL"] = identity.pool
    environ["ENTRYPOINT_SLOT"] = str(identity.slot)
    environ["ENTRYPOINT_WORKER"] = f"{identity.pool}/{identity.slot}"
    environ["ENTRYPOINT_GENERATION"] = str(identity.generation)
    environ.update(extra)
    if any(needs_expansion(value) for _, value in process.env):
        for name, value in process.env:
            environ[name] = expand(value, environ)
    else:
        environ.update(process.env)
    return environ
