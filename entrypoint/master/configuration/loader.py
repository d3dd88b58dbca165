"""Reading the configuration in a short-lived child, so that PID 1 never parses YAML and never waits for a disk."""

# The child is forked as soon as the command line is read, and imports the YAML parser beside the master's own imports.
# It does nothing else, so the stand-ins for most of PyYAML (`config.libyaml`) disturb nobody.

from __future__ import annotations

import os

from entrypoint.record import Record, pack, unpack

TYPE_CHECKING = False  # without `typing`, which would be 7 ms in which nobody reads the configuration yet
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from entrypoint.config.spec import Spec

FAILED = b"failed: "  # in place of a packed answer


class Answer(Record):
    """What came of it: a spec, or why there is none."""

    spec: Spec | None
    warnings: tuple[str, ...]
    errors: tuple[str, ...]
    exit_code: int = 0
    sha256: str = ""  # of what was read, if it could be


def start(
    path: str, sets: tuple[str, ...], workers: int | None, command: tuple[str, ...], *, streams: bool
) -> tuple[int, int]:
    """Fork the child that reads `path`; returns its pid and the descriptor that reads as its packed answer.

    `streams`: it may be a pipe, which is read to its end; there is no second time. All signals are blocked in the
    child: it is short-lived, and ended by SIGKILL. It is for the caller to collect.
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
        _child(writer, path, sets, workers, command, streams=streams)
    os.close(writer)
    return pid, reader


def _child(
    writer: int, path: str, sets: tuple[str, ...], workers: int | None, command: tuple[str, ...], *, streams: bool
) -> NoReturn:
    code = 70
    try:
        from entrypoint.config.libyaml import import_alone

        data = pack(load(path, sets, workers, command, streams=streams, first=import_alone))
        while data:
            data = data[os.write(writer, data) :]
        os.close(writer)  # now, not after the kernel has taken our memory apart
        code = 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, the copy of the master must end here, with a word
        os.write(writer, FAILED + repr(error).encode("utf-8", "replace"))
    finally:
        os._exit(code)


def load(
    path: str,
    sets: tuple[str, ...],
    workers: int | None,
    command: tuple[str, ...],
    *,
    streams: bool,
    first: Callable[[], None] | None = None,
) -> Answer:
    """Read and check a configuration, here and now, after `first`. Never raises."""
    try:
        if first is not None:
            first()
        from entrypoint.config.load import ConfigError, Request
        from entrypoint.config.load import load as load_config

        try:
            loaded = load_config(Request(path, sets, workers, command, streams=streams), os.environ)
        except ConfigError as error:
            return Answer(None, (), error.errors, error.exit_code, error.sha256)
        return Answer(loaded.spec, loaded.warnings, (), 0, loaded.spec.sha256)
    except ImportError as error:  # what we depend on is not installed, or not where we look for it
        return Answer(None, (), (f"cannot load {path}: {error}",), 70)
    except Exception as error:  # noqa: BLE001 - a bug of ours must come out as one clear line
        return Answer(None, (), (f"cannot load {path}: internal error: {error!r}",), 70)


def answer(path: str, data: bytes) -> Answer:
    """Decode what the child wrote before it closed its end."""
    if data.startswith(FAILED):
        why = data.removeprefix(FAILED).decode()[:500]
        return Answer(None, (), (f"cannot load {path}: the process that reads it failed: {why}",), 70)
    if not data:
        return Answer(None, (), (f"cannot load {path}: the process that reads it was killed",), 70)
    try:
        result: Answer = unpack(data)
    except Exception as error:  # noqa: BLE001 - cut short by the death of the child
        return Answer(None, (), (f"cannot load {path}: the process that reads it died: {error!r}",), 70)
    return result
