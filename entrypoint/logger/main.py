"""The start of the logger process."""

from __future__ import annotations

import resource

CHANNEL = 3  # the descriptor that leads to the master
STDOUT = 1


def main() -> int:
    """Frame what workers write until the master hangs up; returns the exit code."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # every worker takes two
    except (OSError, ValueError):
        pass
    from entrypoint.logger.logger import Logger

    return Logger(CHANNEL, STDOUT).run()
