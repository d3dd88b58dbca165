"""The command `entrypoint`. Signals are blocked before anything else happens, so that none is lost.

A signal that arrives while modules are imported stays pending, also for PID 1, where the kernel would otherwise
throw away what no handler waits for. The command that runs next unblocks them when it is ready: the master when
its handlers are in place, every other command at once.
"""

# The C module behind `signal`, which would import enum first: 4 ms with every signal unprotected.
import _signal  # type: ignore[import-not-found] # typeshed leaves it out

_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())

import os  # noqa: E402 - after the mask, on purpose
import sys  # noqa: E402

USAGE = """\
usage: entrypoint run [-c FILE | --init] [--set PATH=VALUE]... [--workers N] [[--] COMMAND [ARG...]]
       entrypoint check [-c FILE] [--set PATH=VALUE]... [--grace-period DURATION] [--json]
       entrypoint schema
       entrypoint version
"""

# PYTHON* variables that change nothing about what the interpreter runs; images set them routinely.
HARMLESS = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONUTF8")


def isolate() -> None:
    """Start over without the PYTHON* variables and without sitecustomize, if either could be at work here.

    The master must not run anybody's code: an injected PYTHONPATH with a sitecustomize would start threads in
    PID 1. The environment itself stays as it is, for the workers. Blocked and pending signals survive the exec.
    """
    if sys.flags.isolated:
        return
    suspects = [n for n in os.environ if n.startswith("PYTHON") and n not in HARMLESS and not n.startswith("PYTHON_")]
    if not suspects and not sys.modules["_thread"]._count():  # noqa: SLF001 - threading would have to be imported to ask
        return
    os.execv(sys.executable, [sys.executable, "-I", "-S", os.path.abspath(__file__), *sys.argv[1:]])


def find_packages() -> None:
    """Started by path, without site: our packages are beside this one, or in the virtual environment."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    prefix = os.path.dirname(os.path.dirname(sys.executable))
    sys.path.append(f"{prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")


def main() -> None:
    """Run one command and exit with its code."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    rest = sys.argv[2:]
    if name == "run":
        isolate()
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # inherited as ignored, it would leave nothing to wait for
        from entrypoint.cli.run import main as run

        sys.exit(run(rest))
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _signal.valid_signals())
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)  # `entrypoint schema | head` is no error
    if name == "check":
        from entrypoint.cli.check import main as check

        sys.exit(check(rest))
    if name == "schema":
        from entrypoint.cli.schema import main as schema

        sys.exit(schema(rest))
    if name in ("version", "--version"):
        from entrypoint import __version__

        print(f"entrypoint {__version__}")
        sys.exit(0)
    if name in ("help", "--help", "-h"):
        print(USAGE, end="")
        sys.exit(0)
    print(f"entrypoint: cannot run {name!r}: no such command" if name else "entrypoint: no command", file=sys.stderr)
    print(USAGE, end="", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    if sys.flags.no_site:
        find_packages()
    main()
