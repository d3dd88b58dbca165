"""What commands print, and how. Light: a probe runs every few seconds."""

from __future__ import annotations

import os
import sys

EXIT_FAILED = 1
EXIT_USAGE = 2


class OutputError(Exception):
    """What was asked for cannot be written; the message says why."""


def write(text: str) -> None:
    """Write what was asked for to stdout, at once. Raises OutputError."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _give_up_stdout()
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from error


def tell(text: str) -> None:
    """Write a remark to stdout. Where that fails, what was asked for has been done all the same."""
    try:
        write(text)
    except OutputError as error:
        if not isinstance(error.__cause__, BrokenPipeError):  # a reader that has gone wants no more
            complain(str(error))


def _give_up_stdout() -> None:
    """What is still buffered must not be tried again at exit; nor what comes next."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass


def open_stdout() -> None:
    """If stdout is closed: from now on every write fails, and no file or socket of ours can take its place.

    Raises OSError.
    """
    if sys.stdout is None:
        while os.open(os.devnull, os.O_RDONLY) < 1:  # stdin is closed, too
            pass
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - lives as long as the process


def complain(message: str) -> None:
    """One or more lines on stderr."""
    for line in message.splitlines() or [message]:
        print(f"entrypoint: {printable(line)}", file=sys.stderr)


def printable(text: str) -> str:
    """Text of unknown origin without anything that a terminal would obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def cut(line: str, width: int) -> str:
    """The line, its end cut off where it is wider than `width` columns (0: any)."""
    if width <= 0 or columns(line) <= width:
        return line
    room = width - 1
    for number, character in enumerate(line):
        room -= columns(character)
        if room < 0:
            return f"{line[:number]}\N{HORIZONTAL ELLIPSIS}"
    return line


def columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)
