"""The start of the monitor process: light, until it is known what else is needed."""

from __future__ import annotations

import signal
import sys

from entrypoint.monitor.timing import Timing

CHANNEL = 3  # the descriptor that leads to the master


def main(timing: Timing | None = None) -> int:
    """Serve the master on descriptor 3 until it hangs up; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        # Keys reach the whole foreground group, and the master decides. Not SIG_IGN: exec would hand that on to probes.
        signal.signal(number, lambda *_: None)
    _import_asyncio()
    from entrypoint.monitor.monitor import run

    return run(CHANNEL, timing or Timing())


def _import_asyncio() -> None:
    """Import asyncio without ssl, as the observer does; `tls` of http.py brings it back for those who need it.

    Python can be built without ssl, so asyncio knows how to live without it.
    """
    sys.modules["ssl"] = None  # type: ignore[assignment] # which makes its import an ImportError
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]
