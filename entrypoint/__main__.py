"""The command `entrypoint`. Signals are blocked before anything else happens, so that none is lost.

A signal that arrives while modules are imported stays pending, also for PID 1, where the kernel would otherwise
throw away what no handler waits for. The command that runs next unblocks them when it is ready: the master when
its handlers are in place, every other command at once.
"""

# The C module behind `signal`, which would import enum first: 4 ms with every signal unprotected.
import _signal  # type: ignore[import-not-found] # typeshed leaves it out

if __name__ == "__main__":  # else the script that imports this has done it
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())

import io
import os
import sys

# PYTHON* variables that change nothing about what the interpreter runs; images set them routinely.
HARMLESS = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONUTF8")


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
    sys.stderr = Stderr()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    rest = sys.argv[2:]
    if name == "run":
        isolate()
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # inherited as ignored, it would leave nothing to wait for
        from entrypoint import lean

        lean.install("entrypoint")
        from entrypoint.cli.run import main as run

        sys.exit(run(rest))
    if name == "monitor":  # the master's helper; nobody else's, so not in the usage
        isolate()
        for number in (_signal.SIGINT, _signal.SIGQUIT):  # until it has its own handlers: keys are the master's
            _signal.signal(number, _signal.SIG_IGN)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _signal.valid_signals())
        from entrypoint.monitor.main import main as monitor

        sys.exit(monitor())
    if name == "observer":  # the same
        isolate()
        for number in (_signal.SIGINT, _signal.SIGQUIT):
            _signal.signal(number, _signal.SIG_IGN)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _signal.valid_signals())
        from entrypoint.observer.main import main as observer

        sys.exit(observer())
    if name == "logger":  # and again
        isolate()
        for number in (_signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM):  # its end comes another way
            _signal.signal(number, _signal.SIG_IGN)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _signal.valid_signals())
        from entrypoint.logger.main import main as logger

        sys.exit(logger())
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
    if sys.flags.no_site:
        find_packages()
    main()
