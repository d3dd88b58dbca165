"""From the name of a command to its module. `run` and the plain probes do not come this way: they are in a hurry."""

from __future__ import annotations

import sys
from importlib import import_module

from entrypoint.cli.common import EXIT_FAILED, EXIT_USAGE, OutputError, complain, open_stdout
from entrypoint.commands import COMMANDS

EXIT_INTERNAL = 70
ALIASES = {"--help": "help", "-h": "help", "--version": "version"}
OVERVIEW = """\
`entrypoint` runs as process 1 of a container: pools of workers by one YAML file, or
one command in place of tini. It reaps, restarts, and stops everything in order.

usage: entrypoint run -c config.yaml     the pools of a file
       entrypoint run -- sleep 60        one command
       entrypoint help                   every command
       entrypoint help COMMAND           its options, with an example
"""


def main(name: str, argv: list[str]) -> int:
    """Run a command; returns its exit code, whatever happens to it and to its output."""
    name = ALIASES.get(name, name)
    try:
        if name in COMMANDS:
            open_stdout()
            return _run(name, argv)
        if name:
            complain(f"cannot run {name!r}: no such command; `entrypoint help` lists them")
        else:
            complain("no command")
            sys.stderr.write(OVERVIEW)
    except OutputError as error:
        complain(str(error))
        return EXIT_FAILED
    except OSError as error:  # no descriptors, no memory
        complain(f"cannot {name}: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}")
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - a bug of ours: one line, and a code that says so
        complain(f"cannot {name}: internal error: {error!r}")
        return EXIT_INTERNAL
    return EXIT_USAGE


def _run(name: str, argv: list[str]) -> int:
    module = import_module(f"entrypoint.cli.{COMMANDS[name].module}")
    code: int = module.main(name, argv) if COMMANDS[name].module == "control" else module.main(argv)
    return code
