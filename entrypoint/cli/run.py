"""`entrypoint run`: become the master."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

USAGE_ERROR = 2
CONFIG_ERROR = 78
INTERNAL_ERROR = 70


class UsageError(Exception):
    """The command line cannot be understood; the message says why."""


class Options(NamedTuple):
    """What the command line asks for."""

    config: str = ""
    init: bool = False
    sets: tuple[str, ...] = ()
    workers: int | None = None
    command: tuple[str, ...] = ()


def parse(argv: list[str]) -> Options:
    """Read the arguments after `run`.

    By hand: what comes before COMMAND is four options, what follows must be left untouched with or without `--`,
    and argparse would take a tenth of the time to the first worker.

    Raises UsageError.
    """
    config, init, workers = "", False, None
    sets: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            rest.insert(0, word)
            break
        name, equals, value = word.partition("=")
        if name == "--init":
            if equals:
                raise UsageError("cannot use --init: it takes no value")
            init = True
            continue
        if name.startswith("-c") and not name.startswith("--") and len(name) > len("-c"):  # -cFILE
            name, value, equals = "-c", word[2:], "="
        if name not in ("-c", "--config", "--set", "--workers"):
            raise UsageError(f"cannot use option {word}: no such option")
        if not equals:
            if not rest:
                raise UsageError(f"cannot use option {name}: it needs a value")
            value = rest.pop(0)
        if name in ("-c", "--config"):
            config = value
        elif name == "--set":
            sets.append(value)
        elif value.isascii() and value.isdigit() and 1 <= int(value) <= 10_000:  # noqa: PLR2004 - as the schema
            workers = int(value)
        else:
            raise UsageError(f"cannot use --workers {value}: not a count from 1 to 10000")
    if init and config:
        raise UsageError("cannot use --init: it takes no config file")
    return Options(config, init, tuple(sets), workers, tuple(rest))


def config_file(options: Options) -> str:
    """The config file to read; empty for init mode."""
    if options.init:
        return ""
    from entrypoint.config.initmode import DEFAULT_CONFIG, find_config

    path = find_config(options.config, os.environ)
    if options.command and path == DEFAULT_CONFIG and not os.path.lexists(path):
        return ""
    return path


def main(argv: list[str]) -> int:
    """Run the master; returns its exit code."""
    try:
        options = parse(argv)
        path = config_file(options)
        if not path and not options.command:
            raise UsageError("cannot run --init: it needs a command")
    except UsageError as error:
        print(f"entrypoint: {error}", file=sys.stderr)
        return USAGE_ERROR

    from entrypoint.master import boot

    if not path:
        return boot.run_command(options.command, options.workers)
    return boot.run_config(path, options.sets, options.workers, options.command)
