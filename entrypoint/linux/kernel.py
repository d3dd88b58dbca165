"""Signals, children, descriptors and limits: the system calls of the master."""

# The standard library has no signalfd, so signals come by a handler and a wake-up pipe (`Signals`).
#
# Where the master is not PID 1 it becomes a subreaper before the first worker, so that orphans come to it all the same.
# And each process that it starts asks the kernel to die with it: after it has taken its credentials, which would clear
# that, and with one more look whether the master still is its parent. PID 1 needs neither, and does not load ctypes.

from __future__ import annotations

import errno
import os

from entrypoint.linux.signals import signal
from entrypoint.record import Record

RESERVE = 16  # descriptors that no worker gets; fewer where there are not many
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

# Never caught: two cannot be, and four mean a fault in the instruction itself, which a handler would repeat for ever.
UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}

# Caught in pool mode; every other signal keeps its default, which for PID 1 is to be ignored.
HANDLED = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
}


# What the kernel discards by default, whoever it is for; and what a terminal sends, or the process does to itself.
QUIET = {signal.SIGCONT, signal.SIGURG, signal.SIGPIPE, signal.SIGXFSZ}
OWN = {signal.SIGTSTP, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}


class Signals:
    """The signals the master got and has not handled yet.

    The handler only notes the number (so nothing is lost, whatever the number of signals: identical ones merge, as
    in the kernel); the byte that the interpreter's C handler writes to `fd` only wakes the loop.
    """

    def __init__(self, numbers: set[signal.Signals] | set[int]) -> None:
        self.pending: set[int] = set()
        self.fd, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.numbers = tuple(int(n) for n in numbers)
        for number in self.numbers:
            signal.signal(number, self._note)
        unblock_signals()

    def _note(self, number: int, _frame: object) -> None:
        self.pending.add(number)

    def drain(self) -> None:
        """Empty the wake-up pipe."""
        try:
            while len(os.read(self.fd, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def take(self) -> list[int]:
        """The pending signals, the most urgent first: an end before everything else."""
        if not self.pending:
            return []
        taken = []
        for number in sorted(self.pending, key=lambda n: (n not in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT), n)):
            self.pending.discard(number)
            taken.append(number)
        return taken


ALL_SIGNALS = signal.valid_signals()


def block_signals() -> None:
    """Keep every signal pending that comes from here on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)


def unblock_signals() -> None:
    """Let every signal through."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ALL_SIGNALS)


def forget_wakeup() -> None:
    """In a forked child: write no bytes into the master's wake-up pipe."""
    signal.set_wakeup_fd(-1)


def default_signals(handled: tuple[int, ...]) -> None:
    """In a forked child: undo the master's handlers, and what else exec would keep."""
    for number in defaults(handled):
        signal.signal(number, signal.SIG_DFL)


def defaults(handled: tuple[int, ...]) -> tuple[int, ...]:
    """What has to be undone for a program: what the master handles, and what the interpreter itself ignores."""
    return (*handled, int(signal.SIGPIPE), int(signal.SIGXFSZ))


def ignored() -> set[int]:
    """The signals that whoever started the master left ignored; a program that is executed inherits that."""
    return {int(n) for n in ALL_SIGNALS if signal.getsignal(n) == signal.SIG_IGN}


def catchable() -> set[int]:
    """Every signal that a handler can be given."""
    return {int(n) for n in signal.valid_signals()} - {int(n) for n in UNCATCHABLE}


def discarded() -> set[int]:
    """What would end any other process, and is discarded by the kernel when PID 1 gets it and does not catch it."""
    return catchable() - {int(n) for n in HANDLED | QUIET | OWN}


class Dead(Record):
    """A child that has ended and still is a zombie: its pid and group cannot belong to anybody else yet."""

    pid: int
    code: int | None  # None: ended by a signal
    signal: int | None


def peek() -> Dead | None:
    """The next child that has ended, left as it is.

    Raises ChildProcessError when there is no child at all.
    """
    info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if info is None:
        return None
    if info.si_code == os.CLD_EXITED:
        return Dead(info.si_pid, info.si_status, None)
    return Dead(info.si_pid, None, info.si_status)


def reap(pid: int) -> None:
    """Collect the zombie `pid`; from here on the number may be anybody's."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def reap_worker(pid: int) -> float:
    """Collect the zombie `pid`; returns the seconds of CPU that it and the children it waited for have used."""
    try:
        _, _, usage = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        return 0.0
    return usage.ru_utime + usage.ru_stime


def group_exists(pgid: int) -> bool:
    """Whether a process of that group is left."""
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def send(pid: int, signum: int) -> None:
    """Signal one process; one that is gone is no error, one that may not be signalled is.

    Raises PermissionError.
    """
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass


def send_awake(pid: int, signum: int) -> None:
    """Signal one process, and have it go on if it is stopped, or it would not see the signal; as systemd does.

    Raises PermissionError.
    """
    send(pid, signum)
    if signum != signal.SIGKILL:  # which is not waited for
        send(pid, signal.SIGCONT)


def send_group(pgid: int, signum: int) -> None:
    """Signal a process group, as far as it is there and ours to signal."""
    try:
        os.killpg(pgid, signum)
    except (ProcessLookupError, PermissionError):
        pass


def group_of(pid: int) -> int:
    """The process group of a process, a zombie included; 0 when it is gone."""
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


class Prctl:
    """prctl(2), which the standard library lacks. Not for PID 1: orphans come to it anyway, and nothing outlives it."""

    def __init__(self) -> None:
        import ctypes

        self._prctl = ctypes.CDLL(None, use_errno=True).prctl

    def become_subreaper(self) -> bool:
        """Make orphans of our descendants our children; see PR_SET_CHILD_SUBREAPER in prctl(2)."""
        return bool(self._prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)

    def die_with_parent(self, parent: int) -> None:
        """Get SIGKILL when the parent dies; see PR_SET_PDEATHSIG in prctl(2). Exits if it is dead already."""
        self._prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(126)


def standard_descriptors() -> None:
    """Make sure that 0, 1 and 2 are open, so that no other file can land there."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)


def keep_descriptors_from_workers() -> None:
    """Mark every descriptor beyond 2 that the master itself inherited as not for its children."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        names = [str(n) for n in range(3, 256)]  # no /proc: the usual suspects
    for name in names:
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:  # the descriptor of the listing itself
                pass


def no_core_dumps() -> None:
    """RLIMIT_CORE 0 for the master and, unless configured otherwise, its workers; they may raise it again."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def leave_descriptors(fd: int) -> None:
    """See that a new descriptor of a worker's is none of the last few. Raises OSError.

    Those are for helpers, for who asks, for reading the configuration again. The kernel gives the lowest number that
    is free, so the number says how many there are.
    """
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= most <= fd + min(RESERVE, most // 8):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def more_descriptors() -> tuple[int, int] | None:
    """Raise the soft limit of open files to the hard one: a worker takes the master two, and one a socket of its own.

    Returns the limits as they were, for the workers, which may not expect numbers above 1023 (see select(2)); None
    when there was nothing to raise.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return None
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return None
    return soft, hard
