"""From the order to the exec: one process, of a worker or of a helper."""

# There are two ways. posix_spawn(3) makes no copy of the master, which takes much less time than a fork and leaves no
# pages behind that have to be copied; `programs` says for which programs. It can do what most workers need: a group,
# signals, descriptors. A fork is for the rest: a terminal, limits, credentials, a directory, a umask, files to be read,
# the worker's own pid in LISTEN_PID or WATCHDOG_PID, PR_SET_PDEATHSIG where the master is not PID 1. The process finds
# the same either way, but that glibc leaves its own signals 32 and 33 ignored until it needs them.
#
# The passage of a forked child is a checklist, in this order: group, terminal, limits, environment, credentials, parent
# death, directory, descriptors, dispositions, mask, limit of open files, exec.
#
# Whether exec worked is told by a close-on-exec pipe, which is looked at when its other end is closed: no text is
# success, else it is the reason. After a posix_spawn there is nothing to wait for.
#
# A forked child pays for each page that it touches, which was most of the cost of a spawn. So the environment is made
# before the fork where it can be, and the child runs as little Python as possible.

from __future__ import annotations

import errno
import os
import resource
from typing import TYPE_CHECKING, NoReturn

from entrypoint.config.environment import worker_environment
from entrypoint.config.expand import expand, needs_expansion
from entrypoint.linux import kernel
from entrypoint.master.processes.programs import FAR, NEAR, Programs, is_near, places
from entrypoint.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from entrypoint.config.environment import Identity
    from entrypoint.config.spec import Process
    from entrypoint.linux.kernel import Prctl

FIRST_SOCKET = 3  # SD_LISTEN_FDS_START in sd_listen_fds(3)
OOM_SCORE_RAISE = 100  # of 1000: enough for the kernel to prefer a worker to the master
CANNOT_EXECUTE, NOT_FOUND = 126, 127  # as the shell reports it
ARG_MAX = 6 << 20  # bytes of all arguments and variables, or a quarter of the stack if that is less; see execve(2)
POINTER = 8  # bytes

# What speaks of a process by its pid, for that process to see whether it is meant.
OWN_PID = ("LISTEN_PID", "WATCHDOG_PID")


class Surroundings(Record):
    """What is the same for every worker."""

    environ: Mapping[str, str]
    master_pid: int
    null: int  # /dev/null
    handled: tuple[int, ...]  # signals that the master catches, or was told to ignore
    prctl: Prctl | None  # None for PID 1
    oom_score_adj: int | None  # the master's; None: unknown
    terminal: int | None  # a terminal to hand over in init mode
    nofile: tuple[int, int] | None = None  # limits of open files as they were before the master raised its own


class Task(Record):
    """One process to start: a worker, a hook of a worker, or a helper of the master."""

    process: Process
    identity: Identity
    sockets: list[tuple[str, int]]  # (name, descriptor) for 3, 4, ...
    foreground: bool = False  # init mode
    notify: str = ""  # the address for NOTIFY_SOCKET; empty: none
    heartbeat: float = 0.0  # seconds of silence that the worker may allow itself; 0: as long as it likes
    main_pid: int = 0  # a hook's: its worker
    output: tuple[int, int] | None = None  # descriptors for 1 and 2; None: the master's
    bare: bool = False  # a helper: the master's environment, told neither who it is nor of its sockets


class Child(Record):
    """A new process."""

    pid: int
    status: int  # until its end it reads as what `Spawner.outcome` understands; -1: the program has been executed
    program: tuple[str, str | None] | None = None  # its name, and PATH, where the way of the next one depends on it


class Spawner:
    """Starts processes."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._programs = Programs(around.handled, around.nofile)

    def spawn(self, task: Task) -> Child:
        """Start one. Raises OSError when the kernel makes no process or no pipe."""
        around, process = self._around, task.process
        environ = program = devices = None
        special = _is_special(process)
        if not _needs_child(task):
            # Everything that can be done before the fork is: the child pays for each page that it touches.
            environ = _environment(around, task)
            if _is_plain(around, task, special=special):
                argv = _argv(task, environ)
                if pid := self._programs.start(argv, environ, _descriptors(around, task)):
                    _prefer(around, task, pid)
                    return Child(pid, -1)
                program, devices = (argv[0], environ.get("PATH")), self._programs.devices
        pid, status = _fork(around, task, environ, devices, special=special)
        _prefer(around, task, pid)
        return Child(pid, status, program)

    def outcome(self, child: Child, told: bytes) -> str:
        """What it means that `status` read like this until its end: empty, the program was executed; else why not."""
        error = told.lstrip(NEAR + FAR)
        if child.program is not None and not error:
            self._programs.executed(*child.program, told)
        return error.decode("utf-8", "replace")


def _prefer(around: Surroundings, task: Task, pid: int) -> None:
    """See to it that a lack of memory ends the process and not the master."""
    if task.process.oom_score_adj is None and around.oom_score_adj is not None and not task.foreground:
        _raise_oom_score(pid, min(1000, around.oom_score_adj + OOM_SCORE_RAISE))


def _fork(
    around: Surroundings, task: Task, environ: dict[str, str] | None, devices: frozenset[int] | None, *, special: bool
) -> tuple[int, int]:
    """Fork, and execute the program in the child; returns its pid and `status`. Raises OSError."""
    status, report = os.pipe2(os.O_CLOEXEC)
    # Blocked across the fork: the child must not take a signal in the master's handlers.
    kernel.block_signals()
    try:
        pid = os.fork()
    except OSError:
        os.close(status)
        os.close(report)
        kernel.unblock_signals()
        raise
    if pid == 0:
        _child(around, task, environ, report, devices, special=special)
    kernel.unblock_signals()
    os.close(report)
    try:
        os.setpgid(pid, pid)  # here as well as in the child: whoever comes first, the group exists from now on
    except OSError:  # it has executed its program, or is gone
        pass
    return pid, status


def _needs_child(task: Task) -> bool:
    """Whether its environment or command takes reading files (which may block) or its own pid."""
    process = task.process
    if task.foreground or task.bare:
        return False
    texts = (*process.argv, *(value for _, value in process.env))
    return bool(process.env_from or process.env_files) or (
        _is_told_its_pid(task) and any(needs_expansion(text) for text in texts)
    )


def _is_told_its_pid(task: Task) -> bool:
    return bool(task.sockets or task.heartbeat) and not task.bare


def _is_plain(around: Surroundings, task: Task, *, special: bool) -> bool:
    """Whether the process needs nothing but its descriptors, group and signals.

    In init mode there is no second one, and the first takes a fork anyway.
    """
    if special or task.foreground or around.prctl is not None or _is_told_its_pid(task):
        return False
    # One that is where another is to be would take a detour.
    return not task.sockets or min(fd for _, fd in task.sockets) >= FIRST_SOCKET + len(task.sockets)


def _descriptors(around: Surroundings, task: Task) -> dict[int, int]:
    """The process's descriptors, by their numbers in it."""
    output = dict(enumerate(task.output or (), 1))
    return {0: around.null, **output, **dict(enumerate((fd for _, fd in task.sockets), FIRST_SOCKET))}


def _is_special(process: Process) -> bool:
    """Whether the worker has limits, a user or a place of its own."""
    return bool(
        process.rlimits
        or process.nice
        or process.oom_score_adj is not None
        or process.credentials is not None
        or process.umask is not None
        or process.cwd
    )


def _claim(environ: dict[str, str]) -> None:
    """A program that is given sockets or owes heartbeats looks whether they are meant for its pid."""
    for name in OWN_PID:
        if name in environ:
            environ[name] = str(os.getpid())


def _raise_oom_score(pid: int, score: int) -> None:
    try:
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:  # where that is not possible, it is not
        return
    try:
        os.write(fd, b"%d" % score)
    except OSError:
        pass
    finally:
        os.close(fd)


def _child(
    around: Surroundings,
    task: Task,
    environ: dict[str, str] | None,
    report: int,
    devices: frozenset[int] | None,
    *,
    special: bool,
) -> NoReturn:
    process = task.process
    code, message = CANNOT_EXECUTE, b"cannot execute"
    try:
        kernel.forget_wakeup()  # the master's: a byte from here would be a signal to it
        os.setpgid(0, 0)
        if task.foreground and around.terminal is not None:
            os.tcsetpgrp(around.terminal, os.getpid())  # TTOU is blocked, so this does not stop us
        if special:
            _limits(process)
        if environ is None:
            environ = _environment(around, task)
        argv = _argv(task, environ)
        if task.foreground or _is_told_its_pid(task):
            _claim(environ)
        if special:
            _credentials(process)
        if around.prctl is not None:  # after the credentials, which clear it
            around.prctl.die_with_parent(around.master_pid)
        if special:
            _place(process)
        if not task.foreground:
            _standard(around.null, task.output)
        if task.sockets:
            report = _place_sockets([fd for _, fd in task.sockets], report)
        kernel.default_signals(around.handled)
        kernel.unblock_signals()
        _lower_descriptors(around, process)
        _execute(argv, environ, process.display, report, devices)
    except StartError as error:
        code, message = error.code, str(error).encode("utf-8", "replace")
    except BaseException as error:  # noqa: BLE001 - whatever it is, the copy of the master must end here
        message = f"cannot execute {process.display}: {error}".encode("utf-8", "replace")
    finally:
        try:
            os.write(report, message[:2000])
        finally:
            os._exit(code)


class StartError(Exception):
    """Why a worker's program never ran, and the exit code that says so."""

    def __init__(self, message: str, code: int = CANNOT_EXECUTE) -> None:
        super().__init__(message)
        self.code = code


def _limits(process: Process) -> None:
    adjust = process.oom_score_adj
    if adjust is not None:
        try:
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            os.write(fd, b"%d" % adjust)
            os.close(fd)
        except OSError as error:
            raise StartError(f"cannot set oom_score_adj {adjust}: {error.strerror}") from None
    for number, *pair in process.rlimits:
        try:
            resource.setrlimit(number, (pair[0], pair[1]))
        except (OSError, ValueError) as error:
            to = " to ".join("unlimited" if value < 0 else str(value) for value in dict.fromkeys(pair))
            raise StartError(f"cannot set rlimits.{_limit_name(number)} to {to}: {_reason(error)}") from None
    if process.nice:
        try:
            os.nice(process.nice)
        except OSError as error:
            raise StartError(f"cannot set nice {process.nice}: {error.strerror}") from None


def _limit_name(number: int) -> str:
    """As the configuration has it."""
    names = (name for name in dir(resource) if name.startswith("RLIMIT_") and getattr(resource, name) == number)
    return next(names, str(number)).removeprefix("RLIMIT_").lower()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def _lower_descriptors(around: Surroundings, process: Process) -> None:
    """Give the worker the limit that the master was started with; last: a copy of the master cannot live by it."""
    if around.nofile is not None and not any(number == resource.RLIMIT_NOFILE for number, *_ in process.rlimits):
        resource.setrlimit(resource.RLIMIT_NOFILE, around.nofile)


def _credentials(process: Process) -> None:
    who = process.credentials
    if who is None:
        return
    if os.getuid() == who.uid and os.getgid() == who.gid and os.getuid() != 0:
        return  # already there, and without the right to set what is set
    try:
        os.setgroups(who.groups)
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)
    except OSError as error:
        raise StartError(f"cannot become user {who.name or who.uid}: {error.strerror}") from None


def _place(process: Process) -> None:
    if process.umask is not None:
        os.umask(process.umask)
    if process.cwd:
        try:
            os.chdir(process.cwd)
        except OSError as error:
            # Not the path: it may hold text from the environment, which is not for the log.
            raise StartError(f"cannot change to the directory of cwd: {error.strerror}") from None


def _argv(task: Task, environ: Mapping[str, str]) -> tuple[str, ...]:
    words = task.process.argv
    return words if task.foreground or task.bare else _expand(words, environ)


def _expand(words: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(expand(word, environ) for word in words)


def _place_sockets(fds: list[int], report: int) -> int:
    """Put the sockets at 3, 4, ...; returns where `report` is from then on. Raises OSError.

    The master keeps these numbers free for as many sockets as its first configuration took; one that is loaded later
    may take more, so what is still needed may be in the way.
    """
    end = FIRST_SOCKET + len(fds)
    if report < end or min(fds) < end:
        import fcntl

        report, *fds = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, end) if fd < end else fd for fd in (report, *fds)]
    for number, fd in enumerate(fds, FIRST_SOCKET):
        os.dup2(fd, number)
    return report


def _environment(around: Surroundings, task: Task) -> dict[str, str]:
    """What the program is to find; before the fork with the wrong pid in OWN_PID."""
    if task.foreground:  # as it is
        return dict(around.environ)
    if task.bare:
        return {**around.environ, **dict(task.process.env)}
    extra = {}
    if task.sockets:
        extra["LISTEN_FDS"] = str(len(task.sockets))
        extra["LISTEN_PID"] = str(os.getpid())
        extra["LISTEN_FDNAMES"] = ":".join(name for name, _ in task.sockets)
    if task.notify:
        extra["NOTIFY_SOCKET"] = task.notify
    if task.heartbeat:
        extra["WATCHDOG_USEC"] = str(int(task.heartbeat * 1e6))
        extra["WATCHDOG_PID"] = str(os.getpid())
    if task.main_pid:
        extra["MAINPID"] = str(task.main_pid)
    return worker_environment(around.environ, task.process, task.identity, extra)


def _standard(null: int, output: tuple[int, int] | None) -> None:
    """Place descriptors 0 to 2; before the sockets, which may take the numbers that these have. Raises OSError."""
    os.dup2(null, 0)
    for number, fd in enumerate(output or (), 1):
        os.dup2(fd, number)


def _execute(
    argv: tuple[str, ...], environ: dict[str, str], display: str, report: int, devices: frozenset[int] | None
) -> NoReturn:
    """execvpe(3) with the worker's own PATH. Raises StartError.

    `devices`: report before a try whether all that it takes is there; see `programs`.
    """
    program = argv[0]
    code, reason = NOT_FOUND, f"no such {'file' if '/' in program else 'command'}"
    near, marks = True, b""
    for place in places(program, environ.get("PATH")):
        if devices is not None:
            near = near and is_near(place, devices)
            marks += NEAR if near else FAR
        if not _is_there(place):  # each exec would take the environment apart, in a process where that is dear
            continue
        if marks:
            os.write(report, marks)
            marks = b""
        try:
            os.execve(place, argv, environ)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                code, reason = CANNOT_EXECUTE, os.strerror(error.errno or 0)
            elif os.path.exists(place) and error.errno == errno.ENOENT:
                code, reason = CANNOT_EXECUTE, "its interpreter is missing"
            elif code == NOT_FOUND and os.path.islink(place):
                reason = f"it is a link to {os.path.realpath(place)}, which is missing"
            if error.errno == errno.E2BIG:
                reason += f": {_too_long(argv, environ)}"
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM):
                break
    raise StartError(f"cannot execute {display}: {reason}", code)


def _is_there(place: str) -> bool:
    """False when execve(2) would not find it; whatever else is wrong with it, that will tell."""
    try:
        os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        pass
    return True


def _too_long(argv: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """What there is too much of: execve(2) limits each string, and all of them with their pointers."""
    from entrypoint.config.scalars import MAX_TEXT

    strings = [(f"argument {number}", os.fsencode(word) + b"\0") for number, word in enumerate(argv)]
    variables = [(f"variable {name}", os.fsencode(f"{name}={value}") + b"\0") for name, value in environ.items()]
    for what, text in strings + variables:
        if len(text) > MAX_TEXT + 1:
            return f"{what} has {len(text) - 1} bytes, and {MAX_TEXT} may be"
    command, rest = (sum(len(text) + POINTER for _, text in each) for each in (strings, variables))
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    most = max(min(stack // 4, ARG_MAX) if stack >= 0 else ARG_MAX, MAX_TEXT + 1)
    return f"its environment has {rest} bytes, its command {command}, and {most} may be"
