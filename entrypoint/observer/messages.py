"""What the master tells of a worker, and what is shown of it; what the observer tells of itself."""

from __future__ import annotations

TYPE_CHECKING = False  # the master uses this as well, and has no use for `typing`
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    # Slot, pid, state, generation, Unix time of its start, restarts of its slot, Unix time of its last heartbeat, what
    # it says about itself. There may be a thousand of them, and names would be most of it.
    Row = tuple[int, int | None, str, int, float | None, int, float | None, str]

SERVES = b'{"serves": true}'  # the observer's first line


def workers(pool: str, rows: Iterable[Row], now: float) -> list[dict[str, Any]]:
    """The workers of a pool by slot, as they are in the status; `now` is the Unix time of the rows."""
    return [_worker(pool, row, now) for row in sorted(rows, key=_slot)]


def _slot(row: Row) -> int:
    return row[0]


def _worker(pool: str, row: Row, now: float) -> dict[str, Any]:
    slot, pid, state, generation, born, restarts, beat, status = row
    return {
        "id": f"{pool}/{slot}",
        "slot": slot,
        "pid": pid,
        "state": state,
        "generation": generation,
        "start_time_seconds": None if born is None else round(born, 3),
        "age_seconds": None if born is None else round(now - born, 3),
        "restarts": restarts,
        "heartbeat_age_seconds": None if beat is None else round(now - beat, 3),
        "resident_memory_bytes": None,  # read by whoever shows it, not by the master
        "status": status,
    }
