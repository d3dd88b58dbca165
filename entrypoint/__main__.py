"""The command `entrypoint`. Signals are blocked before anything else happens, so that none is lost.

A signal that arrives while modules are imported stays pending, also for PID 1, where the kernel would otherwise
throw away what no handler waits for. The command that runs next unblocks them when it is ready: the master when
its handlers are in place, every other command at once.
"""

# What comes before the first line of all is lost, whatever is done here; docs/SIGNALS.md says for how long.

# The C module behind `signal`, which would import enum first, with every signal unprotected meanwhile.
import _signal  # type: ignore[import-not-found] # typeshed leaves it out

if __name__ == "__main__":  # else the script that imports this has done it
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())

import io
import os
import sys

# PYTHON* variables that change nothing about what the interpreter runs; images set them routinely.
HARMLESS = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONUTF8")


# Processes of the master's own; nobody else's, so not in the usage.
HELPERS = ("monitor", "observer", "logger")


class Stderr(io.TextIOBase):
    """Standard error that is never a reason to fail: where it is closed or full, nobody can be told.

    Nothing is kept but the beginning of a line: what could not be written would be tried again at exit, and change the
    exit code.
    """

    def __init__(self) -> None:
        self._encoding = sys.stderr.encoding if sys.stderr is not None else ""  # closed: 2 may be any file of ours
        self._line = ""

    def write(self, text: str) -> int:
        """Take the text; whole lines are written at once."""
        self._line += text
        if text.endswith("\n"):
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Write what can be written."""
        line, self._line = self._line, ""
        try:
            if line and self._encoding:
                os.write(2, line.encode(self._encoding, "backslashreplace"))
        except OSError:
            pass


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
    from entrypoint import interpreter

    try:
        os.execv(sys.executable, interpreter.command(*sys.argv[1:]))
    except OSError as error:
        sys.exit(f"entrypoint: cannot start over in isolation: {sys.executable or 'no interpreter'}: {error.strerror}")


def find_packages() -> None:
    """Started without site: our packages are beside this one, the others where whoever started us found them."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    given = sys._xoptions.get("entrypoint_path")  # noqa: SLF001 - its documented place; see entrypoint.interpreter
    places = [here, *(given.split(":") if isinstance(given, str) else ())]
    sys.path += [place for place in places if place not in sys.path]


def main() -> None:
    """Run one command and exit with its code."""
    sys.stderr = Stderr()
    if sys.flags.no_site:
        find_packages()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    rest = sys.argv[2:]
    if name == "run":
        isolate()
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # inherited as ignored, it would leave nothing to wait for
        from entrypoint import lean

        lean.install("entrypoint")
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
        if name == "probe" and rest in (["live"], ["ready"], ["startup"]):  # every few seconds: nothing that is heavier
            from entrypoint.cli.probe import main as probe

            sys.exit(probe(rest))
        from entrypoint.cli.dispatch import main as dispatch

        sys.exit(dispatch(name, rest))
    except KeyboardInterrupt:
        sys.exit(128 + _signal.SIGINT)


if __name__ == "__main__":
    main()
