"""The resolved configuration: what the master runs by.

Every value here is checked, in one unit, and final: durations and times are seconds, sizes are bytes,
users are numbers. The loader (`entrypoint.config.load`) is the only maker of a `Spec`; the core and the
master only read it. Plain named tuples: immutable, cheap to import, and small enough to travel through a
pipe from the process that reads the configuration to the master.
"""

from __future__ import annotations

from entrypoint.record import Record


class Credentials(Record):
    """Who a process runs as; every field final, so that nothing is looked up between fork and exec."""

    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary groups
    name: str = ""  # for USER and LOGNAME; empty: left as inherited
    home: str = ""  # for HOME; empty: left as inherited


class Process(Record):
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


class Backoff(Record):
    """Delays between the lives of a worker that keeps failing."""

    initial: float = 1.0
    max: float = 30.0
    factor: float = 2.0
    jitter: float = 0.1  # a fraction of the delay, added or taken away


class Restart(Record):
    """When a worker that ended is replaced."""

    policy: str = "always"  # always | on-failure | never
    min_uptime: float = 10.0
    give_up_after: int = 5  # failed lives in a row; 0: never
    backoff: Backoff = Backoff()


class Stop(Record):
    """How a worker is stopped."""

    signal: int = 15
    timeout: float | None = 20.0  # from the first step of the stop to SIGKILL; None: never (init mode)
    quiesce: float = 0.2  # between leaving the kernel's choice of sockets and the stop signal
    delay: float | None = None  # None: shutdown.drain_delay


class Command(Record):
    """A command beside a worker's own: a hook or a probe, run with the worker's environment, user and directory."""

    argv: tuple[str, ...]  # may hold $(NAME), resolved per worker
    display: str  # as it stands in the configuration: safe to log


class Probe(Record):
    """A question asked of a worker again and again; the fields have Kubernetes' meaning."""

    exec: Command | None = None  # exactly one of exec, http and tcp is set
    http: str = ""  # a URL, may hold $(NAME)
    tcp: str = ""  # HOST:PORT, may hold $(NAME)
    period: float = 10.0
    timeout: float = 1.0
    failure_threshold: int = 3
    initial_delay: float = 0.0
    display: str = ""  # what is asked, as it stands in the configuration: safe to log


class Ready(Record):
    """How a worker proves that it can work."""

    when: str = "alive"  # alive | notify | accepting | probe; of an init command: exit
    after: float = 10.0  # alive: so long after its start
    probe: Probe | None = None  # probe


class Heartbeat(Record):
    """Signs of life that a worker owes."""

    timeout: float = 0.0  # the longest silence; 0: none are expected
    abort_signal: int = 6
    abort_grace: float = 5.0  # between abort_signal and SIGKILL


class Lifecycle(Record):
    """Commands around a worker's life."""

    post_start: Command | None = None  # part of its boot
    pre_stop: Command | None = None  # before its stop signal


class Share(Record):
    """So many of a pool's workers, or such a part of them."""

    value: float
    percent: bool = False


class Rollout(Record):
    """How workers are replaced by a new generation; the fields have the meaning of a Deployment's strategy."""

    max_surge: Share = Share(1)
    max_unavailable: Share = Share(0)
    min_ready: float = 0.0  # a new worker counts when it has been ready so long
    deadline: float = 600.0  # the longest time without progress; 0: none


class Auto(Record):
    """`workers: auto`: sized by the cgroup's limits, which are read again every 10 s."""

    per_cpu: float = 1.0
    min: int = 1
    max: int = 0  # 0: no maximum
    memory: int = 0  # bytes each worker needs; 0: memory does not count


class Pool(Record):
    """Workers started the same way."""

    name: str
    process: Process
    workers: int = 1  # with `auto`: as computed at load
    auto: Auto | None = None
    sockets: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    critical: bool = True
    ready: Ready = Ready()
    boot_timeout: float = 60.0  # from spawn to ready; 0: none
    heartbeat: Heartbeat = Heartbeat()
    liveness: Probe | None = None
    lifecycle: Lifecycle = Lifecycle()
    stop: Stop = Stop()
    restart: Restart = Restart()
    rollout: Rollout = Rollout()
    min_ready_workers: Share = Share(1)  # that many make the pool ready
    output: str = "inherit"  # inherit | json
    foreground: bool = False  # init mode: stdin, terminal, descriptors and environment pass through


class Init(Record):
    """A one-shot command before any pool."""

    name: str
    process: Process
    timeout: float = 0.0  # 0: none


class Socket(Record):
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


class Shutdown(Record):
    """The limits of the master's own end."""

    drain_delay: float = 0.0
    grace_period: float = 0.0  # 0: unknown
    termination_log: str = "/dev/termination-log"


class Log(Record):
    """What the master writes to its standard output."""

    level: str = "info"  # debug | info | warning | error
    format: str = "auto"  # json | console | auto


class Control(Record):
    """The socket that `entrypoint status` and its like speak to."""

    enabled: bool = True
    socket: str = "auto"  # a path; auto: the first place that can be written


class Observer(Record):
    """The process that serves HTTP."""

    enabled: bool = True
    socket: Socket = Socket("observer", "tcp", port=9180, backlog=128, bind=":9180")


class Reload(Record):
    """What makes the master read its configuration again."""

    watch: bool = False  # a change of the file


class Spec(Record):
    """A whole configuration."""

    pools: tuple[Pool, ...]
    init: tuple[Init, ...] = ()
    sockets: tuple[Socket, ...] = ()
    shutdown: Shutdown = Shutdown()
    log: Log = Log()
    observer: Observer = Observer()
    control: Control = Control()
    reload: Reload = Reload()
    # (signal number, what it does: shutdown | quit | restart | reload | scale_up | scale_down | forward | ignore)
    signals: tuple[tuple[int, str], ...] = ()
    path: str = ""  # the file it came from
    sha256: str = ""
