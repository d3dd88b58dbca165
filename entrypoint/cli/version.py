"""`entrypoint version`."""

from __future__ import annotations

from entrypoint import __version__
from entrypoint.cli.arguments import parse
from entrypoint.cli.common import write


def main(argv: list[str]) -> int:
    """Print the version on stdout."""
    options = parse("version", argv)
    if isinstance(options, int):
        return options
    write(f"entrypoint {__version__}\n")
    return 0
