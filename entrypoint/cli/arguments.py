"""Command lines, read by argparse."""

from __future__ import annotations

import argparse
from typing import NoReturn

from entrypoint.cli.common import EXIT_USAGE


class Parser(argparse.ArgumentParser):
    """Says a usage error the way every error is said."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(EXIT_USAGE, f"entrypoint: cannot {self.prog.split()[-1]}: {message}\n{self.format_usage()}")


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace | int:
    """The options, or the exit code when there is nothing more to do (`--help`, a usage error): it has been said."""
    try:
        return parser.parse_args(argv)
    except SystemExit as stop:  # the caller owns the exit
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE


def add_socket(parser: argparse.ArgumentParser) -> None:
    """The option that every command has."""
    parser.add_argument(
        "--socket", metavar="PATH", default="", help="the control socket; default: where masters put it"
    )
