"""From the command line to the running loop, and from the loop's end to the exit code.

Up to the loop everything fails fast: one line on standard error, an exit code, nothing started.
"""

# Everything of the master's is close-on-exec, and what it inherited beyond 2 is marked so. Init mode passes everything
# through, and there the worker owns the output, too: the master says only errors, on standard error.

from __future__ import annotations

import gc
import os
import sys
import time

from entrypoint.config.location import inherited
from entrypoint.master.configuration import loader
from entrypoint.master.spared import few

TYPE_CHECKING = False  # `typing` is imported while the configuration is being read
if TYPE_CHECKING:
    from entrypoint.config.spec import Spec
    from entrypoint.core.actions import Exit
    from entrypoint.master.log import Log
    from entrypoint.master.sockets.held import Sockets
    from entrypoint.master.spared import Spared

OPERATIONAL, INTERNAL = 1, 70
LOAD_PATIENCE = 5.0  # how long a TERM waits for a configuration that is being read, before nothing runs at all
LOG_PATIENCE = 0.05  # how long the last lines wait for a reader
GENERATED = frozenset({"ENTRYPOINT_POOL", "ENTRYPOINT_SLOT", "ENTRYPOINT_WORKER", "ENTRYPOINT_GENERATION"})


def run_config(path: str, sets: tuple[str, ...], workers: int | None, command: tuple[str, ...]) -> int:
    """Run the pools of a configuration file; returns the exit code."""
    began = time.monotonic()
    gc.disable()  # everything that is made from here to the loop stays
    spared = few()
    try:
        pid, fd = loader.start(path, sets, workers, command, streams=inherited(path))
    except OSError:  # no process to be had: read it here, at the cost of some memory
        pid = 0
        result = loader.load(path, sets, workers, command, streams=False)  # a pipe could keep it from everything else
    else:
        _import_master()  # while the child reads, on another core if there is one
        result = _wait(path, pid, fd)
    for error in result.errors:
        print(f"entrypoint: {error}", file=sys.stderr)
    if result.spec is None:
        return result.exit_code
    source = (path, sets, workers, command)
    return _run(result.spec, result.warnings, began, spared, source=source, loader_pid=pid)


def run_command(command: tuple[str, ...], workers: int | None) -> int:
    """Run one command without a configuration: init mode, or a pool when `workers` is more than one."""
    gc.disable()
    began = time.monotonic()
    spared = few()
    from entrypoint.config.errors import ConfigError
    from entrypoint.config.initmode import init_spec

    try:
        spec = init_spec(command, workers, os.environ)
    except ConfigError as error:
        print(f"entrypoint: {error}", file=sys.stderr)
        return error.exit_code
    return _run(spec, (), began, spared)


def _import_master() -> None:
    import select  # noqa: F401 - all of these are used later

    from entrypoint.linux import kernel, terminal  # noqa: F401
    from entrypoint.master import log, shell  # noqa: F401
    from entrypoint.master.helpers import observer  # noqa: F401
    from entrypoint.master.processes import spawn  # noqa: F401
    from entrypoint.master.sockets import held  # noqa: F401

    if os.getpid() != 1:
        import ctypes  # noqa: F401


def _wait(path: str, pid: int, fd: int) -> loader.Answer:
    """Wait for the child that reads the configuration; a stop that is asked for meanwhile takes effect after it.

    Signals are still blocked here, so they stay pending, except that a reader which hangs (on a dead network file
    system, say) must not hang the stop.
    """
    import select

    from entrypoint.linux.signals import signal

    chunks = []
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    asked = 0.0
    while True:
        if poll.poll(100):
            data = os.read(fd, 1 << 16)
            if not data:
                break
            chunks.append(data)
        elif {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT} & signal.sigpending():
            asked = asked or time.monotonic()
            if time.monotonic() - asked > LOAD_PATIENCE:
                os.kill(pid, signal.SIGKILL)
                return loader.Answer(None, (), (f"cannot load {path}: stopped while it was being read",), 0)
    os.close(fd)
    return loader.answer(path, b"".join(chunks))


def _run(
    spec: Spec,
    warnings: tuple[str, ...],
    began: float,
    spared: Spared,
    *,
    source: tuple[str, tuple[str, ...], int | None, tuple[str, ...]] = ("", (), None, ()),
    loader_pid: int = 0,
) -> int:
    from entrypoint.linux import kernel, terminal
    from entrypoint.master.configuration.reloading import Source
    from entrypoint.master.log import Log
    from entrypoint.master.processes.spawn import Surroundings
    from entrypoint.master.shell import Shell

    kernel.standard_descriptors()
    init_mode = any(p.foreground for p in spec.pools)
    nofile = None
    if not init_mode:
        nofile = kernel.more_descriptors()
        kernel.keep_descriptors_from_workers()
        kernel.no_core_dumps()
    log = Log(2, level="error", style="plain") if init_mode else Log(1, level=spec.log.level, style=spec.log.format)
    for warning in warnings:
        log.emit("warning", "config_warning", reason=warning)
    try:
        sockets, observed = _bind(spec)
    except OSError as error:
        print(f"entrypoint: {error}", file=sys.stderr)
        return OPERATIONAL
    handled = _handled(spec, init_mode=init_mode)
    prctl = None
    if os.getpid() != 1:
        prctl = kernel.Prctl()
        if not prctl.become_subreaper():
            log.emit("warning", "no_subreaper", error="cannot become a subreaper: orphans go to another process")
    tty = terminal.find() if init_mode else None
    around = Surroundings(
        environ={k: v for k, v in os.environ.items() if init_mode or k not in GENERATED},
        master_pid=os.getpid(),
        null=_null(3 + max((len(p.sockets) for p in spec.pools), default=0)),
        handled=tuple(sorted(handled | kernel.ignored())),
        prctl=prctl,
        oom_score_adj=_oom_score_adj(),
        terminal=tty,
        nofile=nofile,
    )
    log.emit("info", "master_started", pid=os.getpid(), version=_version(), config=spec.path, sha256=spec.sha256[:12])
    signals = kernel.Signals(handled)
    log.keep_descriptor()
    shell = Shell(spec, Source(*source), around, signals=signals, sockets=sockets, observed=observed, log=log)
    if loader_pid:  # it may still be on its way out
        shell.reaper.expect(loader_pid, lambda _outcome: kernel.reap(loader_pid))
    gc.freeze()  # what lives now lives for ever: the collector need not touch it, nor un-share it after a fork
    gc.enable()
    spared.end()
    exit_order = shell.run()
    try:
        if tty is not None:
            terminal.take_back(tty)
        shell.close()
        if last := shell.logger.last(exit_order.serial):
            exit_order = exit_order._replace(fields={**exit_order.fields, "last_output": last})
        _say_goodbye(spec, exit_order, log, began, shell.reaper.orphans, quiet=init_mode)
    finally:
        os._exit(exit_order.code)  # nothing is left that an orderly end of the interpreter would do for us


def _handled(spec: Spec, *, init_mode: bool) -> set[int]:
    """The signals that the master catches."""
    from entrypoint.linux import kernel

    if init_mode:
        return kernel.catchable() - IGNORED_IN_INIT_MODE
    handled = {int(n) for n in kernel.HANDLED} | {number for number, _ in spec.signals}
    # An image may name any signal as the one that stops it: to PID 1 none is to vanish unsaid.
    return handled | kernel.discarded() if os.getpid() == 1 else handled


def _bind(spec: Spec) -> tuple[Sockets | None, Sockets | None]:
    """The workers' sockets and the observer's. Raises OSError with a message for people; then none is held."""
    if not spec.sockets and not spec.observer.enabled:
        return None, None
    from entrypoint.master.sockets.held import SocketError, Sockets

    sockets, observed = Sockets(), Sockets()
    try:
        sockets.prepare(spec.sockets, starting=True)
        if spec.observer.enabled:
            observed.prepare((spec.observer.socket,))
    except (SocketError, OSError) as error:
        sockets.unlink()
        observed.unlink()
        raise OSError(str(error)) from None
    return sockets, observed


IGNORED_IN_INIT_MODE = {21, 22}  # TTIN, TTOU: the kernel's to the master about its terminal, not messages to pass on


def _say_goodbye(spec: Spec, order: Exit, log: Log, began: float, orphans: int, *, quiet: bool) -> None:
    from entrypoint.linux.signals import signal_name
    from entrypoint.master import termination

    fields = dict(order.fields) if order.code and order.reason and "requested" not in order.reason else {}
    if isinstance(fields.get("signal"), int):
        fields["signal"] = signal_name(fields["signal"])
    uptime = round(time.monotonic() - began, 3)
    if not quiet:
        log.emit(
            "info", "master_exiting", exit_code=order.code, reason=order.reason, uptime=uptime, orphans_reaped=orphans
        )
        termination.write(
            spec.shutdown.termination_log, {"reason": order.reason, "exit_code": order.code, **fields, "uptime": uptime}
        )
    log.finish(LOG_PATIENCE)


def _version() -> str:
    from entrypoint import __version__

    return __version__


def _null(at_least: int) -> int:
    """A descriptor of /dev/null out of the way of the workers' sockets."""
    import fcntl

    low = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, at_least)
    os.close(low)
    return high


def _oom_score_adj() -> int | None:
    try:
        with open("/proc/self/oom_score_adj", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
