"""What the master tells the logger: lines of JSON. Imported by both, so it imports nothing.

Back come `{"dropped": LINES}`, `{"last": SERIAL, "lines": [...]}` when all that a worker wrote until its end is read,
and `{"ended": SERIAL}` when nobody holds its pipes any more.
"""

from __future__ import annotations

# Written by hand: `json` imports `re`, and the first worker would wait for it. A pool's name needs no quoting.


def added(serial: int, pool: str, slot: int, pid: int) -> bytes:
    """A worker has been started; the read ends of its pipes, standard output's first, come with this line."""
    return f'{{"add": {serial}, "pool": "{pool}", "slot": {slot}, "pid": {pid}}}\n'.encode()


def exited(serial: int) -> bytes:
    """A worker's main process has ended."""
    return b'{"exited": %d}\n' % serial
