"""Command lines, read by argparse as the table of commands says."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from entrypoint.cli.common import EXIT_USAGE, complain, write
from entrypoint.commands import COMMANDS, COUNT, SLOT
from entrypoint.config.units import parse_duration, parse_int, signal_number

if TYPE_CHECKING:
    from collections.abc import Callable


class Parser(argparse.ArgumentParser):
    """Says a usage error the way every error is said."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        complain(f"cannot {self.prog.split()[-1]}: {message}")
        sys.stderr.write(self.format_usage())
        raise SystemExit(EXIT_USAGE)

    def print_help(self, file: object = None) -> None:
        """Print it on stdout. Raises OutputError."""
        del file  # argparse gives none
        write(self.format_help())


def parser(name: str) -> argparse.ArgumentParser:
    """The parser of a command: what its help says is what it takes."""
    command = COMMANDS[name]
    made = Parser(
        prog=f"entrypoint {name}",
        usage=f"entrypoint {name} {command.arguments}".rstrip(),
        description="\n\n".join(filter(None, [f"{command.help[0].upper()}{command.help[1:]}.", command.details])),
        epilog="\n  ".join(["for example:", *command.examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = command.arguments.split()
    either = next((word.split("|") for word in words if "|--" in word), [])
    group = made.add_mutually_exclusive_group(required=True) if either else made
    for option in command.options:
        names = option.flags or [_key(option.value)]
        settings: dict[str, Any] = {"help": option.help.replace("%", "%%")}
        if option.value:
            settings |= {"metavar": option.value, "type": VALUES.get(option.value, str)}
            if option.value.islower():  # live|ready|startup
                settings["choices"] = option.value.split("|")
            if not option.flags and option.value not in words:
                settings["nargs"] = "?"
            if option.flags and f"[{option.flags[0]} {option.value}]..." in command.arguments:
                settings |= {"action": "append", "default": []}
        else:
            settings["action"] = "store_true"
        (group if {option.value, *option.flags} & set(either) else made).add_argument(*names, **settings)
    return made


def parse(name: str, argv: list[str]) -> argparse.Namespace | int:
    """The options, or the exit code when there is nothing more to do (`--help`, a usage error): it has been said.

    Raises OutputError.
    """
    try:
        return parser(name).parse_args(argv)
    except SystemExit as stop:  # the caller owns the exit
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE


def _key(value: str) -> str:
    """`pool` for POOL[/SLOT]; `choice` for live|ready|startup."""
    return "choice" if value.islower() else value.partition("[")[0].partition("|")[0].lower()


def _count(text: str) -> int | None:
    if text == "reset":
        return None
    try:
        count = parse_int(text)
    except ValueError:
        count = -1
    if count not in COUNT[0]:
        raise argparse.ArgumentTypeError(f"not a count from 0 to {COUNT[0].stop - 1}, nor reset: {text!r}")
    return count


def _target(text: str) -> tuple[str, int | None]:
    pool, slash, slot = text.partition("/")
    if pool and not slash:
        return pool, None
    if not pool or not (slot.isascii() and slot.isdecimal()) or int(slot[:9]) not in SLOT[0]:
        raise argparse.ArgumentTypeError(f"not a pool or a worker such as web or web/2: {text!r}")
    return pool, int(slot)


def _signal(text: str) -> int:
    try:
        return signal_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: {text!r}") from None


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: {text!r}") from None


# What a value that is called so has to be; any other is text.
VALUES: dict[str, Callable[[str], object]] = {
    "COUNT|reset": _count,
    "DURATION": _duration,
    "POOL[/SLOT]": _target,
    "SIGNAL": _signal,
}
