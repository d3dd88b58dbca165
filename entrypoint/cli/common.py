"""What commands print, and how. Light: a probe runs every few seconds."""

from __future__ import annotations

import os
import sys

EXIT_FAILED = 1
EXIT_USAGE = 2


def write(text: str) -> None:
    """Write to stdout; a reader that has gone (`| head`) is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
