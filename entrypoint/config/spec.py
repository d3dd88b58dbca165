"""The resolved configuration: what the master runs by.

Every value here is checked, in one unit, and final: durations and times are seconds, sizes are bytes,
users are numbers. The loader (`entrypoint.config.load`) is the only maker of a `Spec`; the core and the
master only read it. Plain named tuples: immutable, cheap to import, and small enough to travel through a
pipe from the process that reads the configuration to the master.
"""

from __future__ import annotations

from typing import NamedTuple


class Credentials(NamedTuple):
    """Who a process runs as; every field final, so that nothing is looked up between fork and exec."""

    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary groups
    name: str = ""  # for USER and LOGNAME; empty: left as inherited
    home: str = ""  # for HOME; empty: left as inherited


class Process(NamedTuple):
    """How to start one process."""

    argv: tuple[str, ...]  # may hold $(NAME), resolved per worker
    display: str  # the command as it stands in the configuration, before ${NAME}: safe to log
    env: tuple[tuple[str, str], ...] = ()
    env_files: tuple[tuple[str, str], ...] = ()  # (NAME, path) of `{file: path}` values, read at each spawn
    env_from: tuple[str, ...] = ()  # dotenv files, read at each spawn
    unset: tuple[str, ...] = ()  # names taken out of the inherited environment
    cwd: str = ""  # empty: the master's
    credentials: Credentials | None = None  # None: the master's own
    umask: int | None = None
    nice: int = 0  # an increment, as nice(1)
    rlimits: tuple[tuple[int, int, int], ...] = ()  # (RLIMIT_x, soft, hard); -1 is infinity
    oom_score_adj: int | None = None


class Backoff(NamedTuple):
    """Delays between the lives of a worker that keeps failing."""

    initial: float = 1.0
    max: float = 30.0
    factor: float = 2.0
    jitter: float = 0.1  # a fraction of the delay, added or taken away


class Restart(NamedTuple):
    """When a worker that ended is replaced."""

    policy: str = "always"  # always | on-failure | never
    min_uptime: float = 10.0
    give_up_after: int = 5  # failed lives in a row; 0: never
    backoff: Backoff = Backoff()


class Stop(NamedTuple):
    """How a worker is stopped."""

    signal: int = 15
    timeout: float | None = 20.0  # from the first step of the stop to SIGKILL; None: never (init mode)
    quiesce: float = 0.2  # between leaving the kernel's choice of sockets and the stop signal
    delay: float | None = None  # None: shutdown.drain_delay


class Ready(NamedTuple):
    """How a worker proves that it can work."""

    when: str = "alive"
    after: float = 10.0


class Auto(NamedTuple):
    """`workers: auto`: sized by the cgroup's limits, which are read again every 10 s."""

    per_cpu: float = 1.0
    min: int = 1
    max: int = 0  # 0: no maximum
    memory: int = 0  # bytes each worker needs; 0: memory does not count


class Pool(NamedTuple):
    """Workers started the same way."""

    name: str
    process: Process
    workers: int = 1  # with `auto`: as computed at load
    auto: Auto | None = None
    sockets: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    critical: bool = True
    ready: Ready = Ready()
    stop: Stop = Stop()
    restart: Restart = Restart()
    foreground: bool = False  # init mode: stdin, terminal, descriptors and environment pass through


class Init(NamedTuple):
    """A one-shot command before any pool."""

    name: str
    process: Process
    timeout: float = 0.0  # 0: none


class Socket(NamedTuple):
    """One address that the master binds and holds."""

    name: str
    kind: str  # tcp | unix | fd
    host: str = ""  # tcp: an address; empty: every address, v4 and v6
    port: int = 0
    path: str = ""  # unix
    mode: int | None = None  # unix
    uid: int = -1  # unix; -1: unchanged
    gid: int = -1
    fd: int = -1  # fd: the number in the master
    backlog: int = 2048
    reuse_port: bool = False
    bind: str = ""  # as written, for messages


class Shutdown(NamedTuple):
    """The limits of the master's own end."""

    drain_delay: float = 0.0
    grace_period: float = 0.0  # 0: unknown
    termination_log: str = "/dev/termination-log"


class Log(NamedTuple):
    """What the master writes to its standard output."""

    level: str = "info"  # debug | info | warning | error
    format: str = "auto"  # json | console | auto


class Spec(NamedTuple):
    """A whole configuration."""

    pools: tuple[Pool, ...]
    init: tuple[Init, ...] = ()
    sockets: tuple[Socket, ...] = ()
    shutdown: Shutdown = Shutdown()
    log: Log = Log()
    # (signal number, shutdown | fast_shutdown | quit | forward | ignore | ...) beyond the fixed ones
    signals: tuple[tuple[int, str], ...] = ()
    path: str = ""  # the file it came from
    sha256: str = ""
