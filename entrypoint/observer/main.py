"""The start of the observer process. What it imports is kept small: it is in every container, beside the workers.

The process is there before the first workers, or with them, and waits for the master's first word before it imports
anything: that time would be missing to the workers.
"""

from __future__ import annotations

import select
import sys

TYPE_CHECKING = False  # until it is its turn it imports nothing
if TYPE_CHECKING:
    from types import ModuleType

CHANNEL = 3  # the descriptor that leads to the master; the listening sockets come after it
TURN = 0.5  # seconds that the first workers go first, at most


def main() -> int:
    """Serve HTTP on the descriptors from 4 on; returns an exit code if it cannot, and else ends with the master."""
    select.select([CHANNEL], [], [], TURN)  # the master's first word is left to whom it is for
    _import_asyncio()
    _import_prometheus()
    from entrypoint.observer.observer import run

    return run(CHANNEL)


def _import_asyncio() -> None:
    """Import asyncio without ssl, which would be 4 of its 11 MB. Python can be built without, so asyncio knows how."""
    sys.modules["ssl"] = None  # type: ignore[assignment] # which makes its import an ImportError
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]


def _import_prometheus() -> None:
    """Let parts of prometheus_client be imported alone.

    The package itself imports HTTP servers and clients, and collectors of its own: some 5 MB that nobody needs here.
    """
    from importlib.util import find_spec

    spec = find_spec("prometheus_client")
    if spec is not None:
        package: ModuleType = type(sys)("prometheus_client")
        sys.modules["prometheus_client"] = package
        package.__spec__ = spec
        package.__path__ = spec.submodule_search_locations or []
