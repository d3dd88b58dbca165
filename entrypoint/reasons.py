"""Why the life of a worker ends: one table for who counts it, judges it, shows it, and tells people about it.

A new reason is a row here, and one place that finds it or wishes it. Metrics, their documentation and the alerts
follow.
"""

from __future__ import annotations

from entrypoint.record import Record


class Reason(Record):
    """One of them; `name` is its word in the log and its label in metrics."""

    name: str
    meaning: str  # what the worker did, for docs/METRICS.md
    asked: bool = False  # somebody asked it to go: that is neither a failure nor a restart
    success: bool = False  # it has done what it was to do
    fails_boot: bool = False  # as what it is stopped for: a failed boot, however long that took
    timeout: str = ""  # the deadline that it missed, as counted


REASONS = {
    reason.name: reason
    for reason in (
        Reason("completed", "ended with code 0", success=True),
        Reason("error", "ended with another code, or could not be executed", fails_boot=True),  # of a post_start
        Reason("signal", "was ended by a signal, not by the master"),
        Reason(
            "oom",
            "was ended by KILL, and the kernel has killed something in the container for lack of memory since the last "
            "such end",
        ),
        Reason("boot_timeout", "was not ready in time", fails_boot=True, timeout="boot"),
        Reason("heartbeat_timeout", "was silent for too long", timeout="heartbeat"),
        Reason("liveness", "failed its liveness probe"),
        Reason("max_lifetime", "was old enough", asked=True),
        Reason("max_memory", "took more memory than it is to have", asked=True),
        Reason("max_requests", "had served as many requests as it is to serve", asked=True),
        Reason("memory_guard", "was the largest when the container was short of memory", asked=True),
        Reason("rollout", "made way for a new generation, or is one that was taken back", asked=True),
        Reason("scale_down", "was one too many", asked=True),
        Reason("shutdown", "went with the master", asked=True),
        Reason(
            "requested",
            "went by `entrypoint stop`, by `entrypoint signal` with the stop signal, or with its pool",
            asked=True,
        ),
    )
}

RESTARTS = tuple(reason.name for reason in REASONS.values() if not reason.asked)  # what follows counts as a restart
TIMEOUTS = (*(reason.timeout for reason in REASONS.values() if reason.timeout), "stop")
