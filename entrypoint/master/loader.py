"""Reading the configuration in a short-lived child, so that PID 1 never parses YAML and never waits for a disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from entrypoint.config.spec import Spec


class Loading(NamedTuple):
    """A configuration that is being read; `fd` reads as the pickled answer."""

    pid: int
    fd: int


class Answer(NamedTuple):
    """What came of it: a spec, or why there is none."""

    spec: Spec | None
    warnings: tuple[str, ...]
    errors: tuple[str, ...]
    exit_code: int


def start(path: str, sets: tuple[str, ...], workers: int | None, command: tuple[str, ...]) -> Loading:
    """Fork the child that reads `path`. All signals are blocked in it: it is short-lived and ended by SIGKILL.

    Raises OSError when the kernel makes no process.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if pid == 0:
        _child(writer, path, sets, workers, command)
    os.close(writer)
    return Loading(pid, reader)


def _child(writer: int, path: str, sets: tuple[str, ...], workers: int | None, command: tuple[str, ...]) -> NoReturn:
    code = 70
    try:
        import pickle

        data = pickle.dumps(load(path, sets, workers, command))
        while data:
            data = data[os.write(writer, data) :]
        code = 0
    finally:
        os._exit(code)


def load(path: str, sets: tuple[str, ...], workers: int | None, command: tuple[str, ...]) -> Answer:
    """Read and check a configuration, here and now. Never raises."""
    try:
        from entrypoint.config.load import ConfigError, Request
        from entrypoint.config.load import load as load_config

        try:
            loaded = load_config(Request(path, sets, workers, command), os.environ)
        except ConfigError as error:
            return Answer(None, (), error.errors, error.exit_code)
        return Answer(loaded.spec, loaded.warnings, (), 0)
    except Exception as error:  # noqa: BLE001 - a bug of ours must come out as one clear line
        return Answer(None, (), (f"cannot load {path}: internal error: {error!r}",), 70)


def answer(path: str, data: bytes) -> Answer:
    """Decode what the child wrote before it closed its end."""
    import pickle

    if not data:
        return Answer(None, (), (f"cannot load {path}: the process that reads it was killed",), 70)
    try:
        result: Answer = pickle.loads(data)  # noqa: S301 - from our own fork
    except Exception as error:  # noqa: BLE001 - cut short by the death of the child
        return Answer(None, (), (f"cannot load {path}: the process that reads it died: {error!r}",), 70)
    return result
