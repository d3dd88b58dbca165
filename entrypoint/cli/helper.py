"""A process of the master's own: its monitor, its observer, its logger. Not for people."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # typeshed leaves it out; see __main__
import os
import sys

CHANNEL = 3  # the descriptor that leads to the master
INTERNAL_ERROR = 70


def main(name: str) -> int:
    """Be a process of the master's own; returns the exit code. Why it cannot be, the master is told."""
    # Until it has its own handlers: keys are the master's. The logger's end comes another way than by TERM.
    for number in (_signal.SIGINT, _signal.SIGQUIT, *((_signal.SIGTERM,) if name == "logger" else ())):
        _signal.signal(number, _signal.SIG_IGN)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _signal.valid_signals())
    try:
        if name == "monitor":
            from entrypoint.monitor.main import main as monitor

            return monitor()
        if name == "observer":
            from entrypoint.observer.main import main as observer

            return observer()
        from entrypoint.logger.main import main as logger

        return logger()
    except Exception as error:  # noqa: BLE001 - whatever it is: one line in the log, not a traceback for each attempt
        _complain(name, error)
        return INTERNAL_ERROR


def _complain(name: str, error: Exception) -> None:
    """Tell the master why its helper ends; where it happened, too, unless something is missing around us."""
    import json

    said = {"failed": f"cannot run entrypoint {name}: {type(error).__name__}: {error}"[:500]}
    if not isinstance(error, ImportError | OSError):
        import traceback

        said["where"] = traceback.format_exc()[-900:]
    try:
        os.write(CHANNEL, json.dumps(said).encode() + b"\n")
    except OSError:  # nobody is there
        print(f"entrypoint: {said['failed']}", file=sys.stderr)
