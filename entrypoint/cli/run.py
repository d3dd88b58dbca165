"""`entrypoint run`: become the master."""

from __future__ import annotations

import errno
import os
import sys

from entrypoint.config.location import DEFAULT_CONFIG, absolute, find_config

OPERATIONAL_ERROR = 1
USAGE_ERROR = 2
INTERNAL_ERROR = 70
MAX_WORKERS = 10_000  # as in the configuration


class UsageError(Exception):
    """The command line cannot be understood; the message says why."""


class Options:
    """What the command line asks for. A plain class: `typing` would delay the reading of the configuration."""

    def __init__(
        self,
        config: str = "",
        *,
        init: bool = False,
        sets: tuple[str, ...] = (),
        workers: int | None = None,
        command: tuple[str, ...] = (),
        help: bool = False,  # noqa: A002 - as the option
    ) -> None:
        self.config = config
        self.init = init
        self.sets = sets
        self.workers = workers
        self.command = command
        self.help = help


def parse(argv: list[str]) -> Options:
    """Read the arguments after `run`.

    By hand: what comes before COMMAND is four options, what follows must be left untouched with or without `--`,
    and argparse would take a tenth of the time to the first worker.

    Raises UsageError.
    """
    values: dict[str, list[str]] = {"-c": [], "--set": [], "--workers": []}
    init = False
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            rest.insert(0, word)
            break
        if word == "--init":
            init = True
            continue
        if word in ("-h", "--help"):
            return Options(help=True)
        name, equals, value = word.partition("=")
        if word.startswith("-c") and word != "-c":  # -cFILE
            name, equals, value = "-c", "=", word[2:]
        name = "-c" if name == "--config" else name
        if name not in values:
            raise UsageError(f"cannot use option {word}: no such option")
        if not equals and not rest:
            raise UsageError(f"cannot use option {name}: it needs a value")
        values[name].append(value if equals else rest.pop(0))
    config = values["-c"][-1] if values["-c"] else ""
    if init and config:
        raise UsageError("cannot use --init: it takes no config file")
    workers = count(values["--workers"][-1]) if values["--workers"] else None
    return Options(config, init=init, sets=tuple(values["--set"]), workers=workers, command=tuple(rest))


def count(text: str) -> int:
    """A number of workers. Raises UsageError."""
    if text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_WORKERS:
        return int(text)
    raise UsageError(f"cannot use --workers {text}: not a count from 1 to {MAX_WORKERS}")


def config_file(options: Options) -> str:
    """The config file to read; empty for init mode."""
    if options.init:
        return ""
    path = find_config(options.config, os.environ)
    if options.command and path == DEFAULT_CONFIG and not os.path.lexists(path):
        return ""
    return absolute(path, os.environ)


def show_help() -> int:
    """Print it on stdout; returns the exit code."""
    import signal

    from entrypoint.cli.dispatch import main as dispatch

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    return dispatch("help", ["run"])


def main(argv: list[str]) -> int:
    """Run the master; returns its exit code."""
    try:
        options = parse(argv)
    except UsageError as error:
        print(f"entrypoint: {error}", file=sys.stderr)
        return USAGE_ERROR
    if options.help:
        return show_help()
    path = config_file(options)
    if not path and not options.command:
        print("entrypoint: cannot use --init: it needs a command", file=sys.stderr)
        return USAGE_ERROR

    from entrypoint.master import boot

    try:
        if not path:
            return boot.run_command(options.command, options.workers)
        return boot.run_config(path, options.sets, options.workers, options.command)
    except OSError as error:  # no memory, no descriptors, no /dev/null: nothing runs yet
        where = f"{error.filename}: " if error.filename and error.errno not in (errno.EMFILE, errno.ENFILE) else ""
        print(f"entrypoint: cannot start: {where}{error.strerror or error}", file=sys.stderr)
        return OPERATIONAL_ERROR
    except Exception as error:  # noqa: BLE001 - a bug of ours, before anything runs: one line, and a code that says so
        print(f"entrypoint: cannot start: internal error: {error!r}", file=sys.stderr)
        return INTERNAL_ERROR
