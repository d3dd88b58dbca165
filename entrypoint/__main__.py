"""The command `entrypoint`. Signals are blocked before anything else happens, so that none is lost.

A signal that arrives while modules are imported stays pending, also for PID 1, where the kernel would otherwise
throw away what no handler waits for. The command that runs next unblocks them when it is ready: the master when
its handlers are in place, every other command at once.
"""

# The C module behind `signal`, which would import enum first: 4 ms with every signal unprotected.
import _signal  # type: ignore[import-not-found] # typeshed leaves it out

if __name__ == "__main__":  # else the script that imports this has done it
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())

import os
import sys

USAGE = """\
usage: entrypoint run [-c FILE | --init] [--set PATH=VALUE]... [--workers N] [[--] COMMAND [ARG...]]
       entrypoint check [-c FILE] [--set PATH=VALUE]... [--grace-period DURATION] [--json]
       entrypoint schema
       entrypoint status [POOL] [--json] [--watch]
       entrypoint scale POOL COUNT|reset
       entrypoint restart POOL|--all [--wait]
       entrypoint reload [--wait]
       entrypoint start POOL
       entrypoint stop POOL
       entrypoint signal POOL[/SLOT] SIGNAL
       entrypoint probe live|ready|startup
       entrypoint version

status to probe speak to a running master, through its control socket or the one of --socket PATH.
"""

CONTROL = ("scale", "restart", "reload", "start", "stop", "signal")

# PYTHON* variables that change nothing about what the interpreter runs; images set them routinely.
HARMLESS = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONUTF8")


# Processes of the master's own; nobody else's, so not in the usage.
HELPERS = ("monitor", "observer", "logger")


def isolate() -> None:
    """Start over without the PYTHON* variables and without sitecustomize, if either could be at work here.

    The master must not run anybody's code: an injected PYTHONPATH with a sitecustomize would start threads in
    PID 1. Nor may a locale decide what text means: configurations are UTF-8, and so is what workers get of them.
    The environment itself stays as it is, for the workers. Blocked and pending signals survive the exec.
    """
    if sys.flags.isolated:
        return
    suspects = [n for n in os.environ if n.startswith("PYTHON") and n not in HARMLESS and not n.startswith("PYTHON_")]
    threads = sys.modules["_thread"]._count()  # noqa: SLF001 - threading would have to be imported to ask
    if not suspects and not threads and sys.getfilesystemencoding() == "utf-8":
        return
    from entrypoint.master import interpreter

    try:
        os.execv(sys.executable, interpreter.command(*sys.argv[1:]))
    except OSError as error:
        sys.exit(f"entrypoint: cannot start over in isolation: {sys.executable or 'no interpreter'}: {error.strerror}")


def find_packages() -> None:
    """Started without site: our packages are beside this one, the others where whoever started us found them."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    given = sys._xoptions.get("entrypoint_path")  # noqa: SLF001 - its documented place; see entrypoint.master.interpreter
    places = [here, *(given.split(":") if isinstance(given, str) else ())]
    sys.path += [place for place in places if place not in sys.path]


def main() -> None:
    """Run one command and exit with its code."""
    if sys.flags.no_site:
        find_packages()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    rest = sys.argv[2:]
    if name == "run":
        isolate()
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # inherited as ignored, it would leave nothing to wait for
        from entrypoint.cli.run import main as run

        sys.exit(run(rest))
    if name in HELPERS:
        from entrypoint.cli.helper import main as helper

        sys.exit(helper(name))
    if name in ("check", "schema"):  # they read a configuration as the master does
        isolate()
    try:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _signal.valid_signals())
        _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)  # `entrypoint schema | head` is no error
        sys.exit(command(name, rest))
    except KeyboardInterrupt:
        sys.exit(128 + _signal.SIGINT)


def command(name: str, rest: list[str]) -> int:
    """Run a command that is not the master; returns its exit code."""
    if name == "probe":
        from entrypoint.cli.probe import main as probe

        return probe(rest)
    if name == "status":
        from entrypoint.cli.status import main as status

        return status(rest)
    if name in CONTROL:
        from entrypoint.cli.control import main as control

        return control(name, rest)
    if name == "check":
        from entrypoint.cli.check import main as check

        return check(rest)
    if name == "schema":
        from entrypoint.cli.schema import main as schema

        return schema(rest)
    if name in ("version", "--version"):
        from entrypoint import __version__

        print(f"entrypoint {__version__}")
        return 0
    if name in ("help", "--help", "-h"):
        print(USAGE, end="")
        return 0
    print(f"entrypoint: cannot run {name!r}: no such command" if name else "entrypoint: no command", file=sys.stderr)
    print(USAGE, end="", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
