"""Every key of the configuration, in one table.

Validation, defaults, `entrypoint schema` and docs/CONFIG.md are all derived from it, so a key is written down once.
Defaults stand here as a user would write them.
"""

# A table of our own instead of a validation library: the lightest one (msgspec) takes longer to import than reading and
# checking a configuration takes in all, and it stops at the first mistake. From this table come the check, the "did you
# mean", the JSON Schema and CONFIG.md. It also knows lines, which validators of plain data do not.

from __future__ import annotations

from entrypoint.config import units
from entrypoint.config.kinds import (
    MAX_WORKERS,
    Field,
    ListOf,
    MapOf,
    OneOf,
    Section,
    boolean,
    choice,
    duration,
    integer,
    name_text,
    number,
    octal,
    share,
    signal_kind,
    size,
    text,
)
from entrypoint.config.scalars import (
    ABSOLUTE_PATH,
    CONTROL_SOCKET,
    DRAIN_DELAY,
    HEARTBEAT_TIMEOUT,
    HOST_PORT,
    LIMIT,
    MAPPED_SIGNAL,
    MAPPED_SIGNALS,
    PATH,
    SECRET,
    TRUE,
    URL,
    WORD,
    WORKERS,
    mapped_signal,
)

ENV_NAME = r"[^=\x00]+"
RLIMITS = (
    ("as", "address space, bytes"),
    ("core", "core files, bytes; 0 unless set"),
    ("cpu", "CPU seconds"),
    ("data", "data segment, bytes"),
    ("fsize", "size of a written file, bytes"),
    ("memlock", "locked memory, bytes"),
    ("msgqueue", "POSIX message queues, bytes"),
    ("nice", "ceiling of the nice value, as 20 - nice"),
    ("nofile", "open file descriptors"),
    ("nproc", "processes of the user"),
    ("rss", "resident set, bytes (not enforced by Linux)"),
    ("rtprio", "real-time priority"),
    ("rttime", "microseconds of real-time CPU without a blocking call"),
    ("sigpending", "queued signals"),
    ("stack", "stack, bytes"),
)


def _env_name(key: str) -> str:
    if not key or "=" in key or "\0" in key:
        raise ValueError("not a name of an environment variable")
    return key


LIMITS = Section(
    "soft and hard",
    Field("soft", LIMIT, required=True, doc="What applies."),
    Field("hard", LIMIT, required=True, doc="What the process may raise `soft` to."),
)
FILE = Section(
    "a file",
    Field("file", PATH, required=True, doc="A file whose content is the value (one trailing newline is cut off)."),
)
AUTO = Section(
    "auto with bounds",
    Field("auto", TRUE, required=True, doc="Must be true."),
    Field("per_cpu", number(0.01, 1000), "1", "Workers per CPU of the limit; the product is rounded up."),
    Field("min", integer(1, MAX_WORKERS), "1", "Never fewer, whatever the limits say."),
    Field("max", integer(0, MAX_WORKERS), "0", "Never more; 0 = no maximum."),
    Field("memory", size(), "0", "Memory that a worker needs: the memory limit is divided by it; 0 = not considered."),
)


PROCESS = (
    Field(
        "env",
        MapOf(OneOf(SECRET, FILE), "mapping of variables", _env_name, ENV_NAME),
        {},
        "Variables added to the inherited environment: text, or `{file: PATH}`, read at each spawn. `$(NAME)` is "
        "replaced by the variable NAME of the worker.",
        reload="roll",
    ),
    Field(
        "env_from",
        ListOf(PATH, "list of paths", most=100),
        [],
        "Dotenv files, read at each spawn; `env` wins.",
        reload="roll",
    ),
    Field(
        "cwd",
        PATH,
        None,
        "Working directory, and PWD when it is an absolute path; default: the master's.",
        reload="roll",
    ),
    Field(
        "user",
        text("USER or USER:GROUP, names or numbers", least=1),
        None,
        "User to run as; HOME, USER and the supplementary groups follow, those of the master are dropped. The group of "
        "a uid without an entry in /etc/passwd is the master's. `USER:GROUP` sets `group` as well. /dev/stdout and "
        "/dev/stderr can be opened by it when they are a pipe or a terminal of the master's user; a terminal is "
        "writable for every user meanwhile.",
        reload="roll",
    ),
    Field("group", text("group name or gid", least=1), None, "Primary group; default: the user's.", reload="roll"),
    Field("umask", octal(), None, "File mode mask, octal; default: the master's.", reload="roll"),
    Field("nice", integer(-20, 19), "0", "Added to the nice value.", reload="roll"),
    Field(
        "rlimits",
        Section(
            "resource limits", *(Field(name, OneOf(LIMIT, LIMITS), None, f"Limit: {doc}.") for name, doc in RLIMITS)
        ),
        None,
        "Resource limits: `unlimited`, a number for both, or `{soft: ..., hard: ...}`.",
        reload="roll",
    ),
    Field(
        "oom_score_adj",
        integer(-1000, 1000),
        None,
        "Preference of the kernel's OOM killer; default: raised a little.",
        reload="roll",
    ),
)
COMMAND = ListOf(WORD, "list of words", least=1, command=True)
COMMAND_DOC = (
    "The program and its arguments; never a shell. `$(NAME)` is replaced by the variable NAME of the worker, "
    "as in a Kubernetes `args`."
)


def _probe(period: str, failure: str) -> tuple[Field, ...]:
    return (
        Field("exec", COMMAND, None, "A command, run as the worker is run: exit code 0 is a success."),
        Field(
            "http",
            URL,
            None,
            "An `http://` or `https://` URL: a status from 200 to 399 is a success. `$(NAME)` is replaced by the "
            "variable NAME of the worker.",
        ),
        Field(
            "tcp",
            HOST_PORT,
            None,
            "An address: a connection is a success. `$(NAME)` as in `http`.",
        ),
        Field("period", duration(0.1), period, "From one probe to the next."),
        Field("timeout", duration(0.01), "1s", "A probe without an answer by then has failed."),
        Field("failure_threshold", integer(1, 1000), "3", failure),
        Field("initial_delay", duration(), "0s", "Before the first probe."),
    )


READY = Section(
    "readiness",
    Field(
        "when",
        choice("alive", "notify", "accepting"),
        "alive",
        "What proves that a worker can work. alive: it has lived for `after`; notify: it says `READY=1`, see "
        "sd_notify(3); accepting: it listens on or polls one of its `sockets`. Or a probe instead: exactly one of "
        "`exec`, `http` and `tcp`, whose first success makes the worker ready.",
    ),
    Field("after", duration(), "10s", "alive: this long after its start. Less than `boot_timeout`."),
    *_probe("1s", "Failures in a row that are worth a message; what ends an endless boot is `boot_timeout`."),
)
LIVENESS = Section("liveness", *_probe("10s", "Failures in a row after which the worker is stopped and replaced."))
HEARTBEAT = Section(
    "heartbeat",
    Field(
        "timeout",
        HEARTBEAT_TIMEOUT,
        "0s",
        "The longest silence between two `WATCHDOG=1` (sd_notify(3)) of a ready worker; then it counts as hung. "
        "0 = no heartbeat is expected.",
        reload="roll",
    ),
    Field(
        "abort_signal",
        signal_kind(caught=True),
        "ABRT",
        "What a hung worker gets first, also one that never got ready.",
    ),
    Field("abort_grace", duration(), "5s", "From `abort_signal` to SIGKILL."),
)
LIFECYCLE = Section(
    "lifecycle",
    Field(
        "pre_stop",
        COMMAND,
        None,
        "Run for each worker before its stop signal, within its `stop.timeout`. A command, never a shell, with the "
        "worker's environment and user.",
    ),
    Field("post_start", COMMAND, None, "Run for each worker once it is started, within its `boot_timeout`."),
)
ROLLOUT = Section(
    "rollout",
    Field(
        "max_surge", share(1000), "1", "How many more than `workers` there may be while it lasts: a count, or `25%`."
    ),
    Field("max_unavailable", share(), "0", "How many fewer may be ready while it lasts. Not both 0."),
    Field("min_ready", duration(), "0s", "A new worker counts once it has been ready for so long."),
    Field(
        "deadline", duration(), "10m", "The longest time without progress; then the rollout has failed. 0 = no limit."
    ),
)
STOP = Section(
    "stop",
    Field("signal", signal_kind(), "TERM", "The signal that asks a worker to stop."),
    Field(
        "timeout",
        duration(0.1),
        "20s",
        "From the first step of the stop to SIGKILL; covers `quiesce` and `lifecycle.pre_stop`.",
    ),
    Field(
        "quiesce",
        duration(),
        "200ms",
        "With reuse_port: from taking a worker's socket out of service to its stop signal. Less than `timeout`.",
    ),
    Field("delay", duration(), None, "Instead of shutdown.drain_delay, for this pool; 0s exempts a queue consumer."),
)
BACKOFF = Section(
    "backoff",
    Field("initial", duration(0.001), "1s", "The first delay."),
    Field("max", duration(0.001), "30s", "The longest delay."),
    Field("factor", number(1, 100), "2", "Each delay is this many times the one before."),
    Field("jitter", number(0, 1), "0.1", "The part of a delay that is left to chance, up or down."),
)
RESTART = Section(
    "restart",
    Field(
        "policy",
        choice("always", "on-failure", "never"),
        "always",
        "Whether a worker that ends by itself is replaced. With `never` and `on-failure` a pool can complete. With "
        "`never`, a critical pool has failed once a worker of it ends with an error: it is not ready any more, what "
        "comes `after` it does not start, and the master ends with that worker's code as soon as no other critical "
        "pool is left that can still complete.",
    ),
    Field("min_uptime", duration(), "10s", "A worker that ends earlier has failed."),
    Field("give_up_after", integer(0, 1_000_000), "5", "Failures in a row, per pool; 0 = never give up."),
    Field("backoff", BACKOFF, {}, "Delays between failures; the first replacement comes at once."),
)
POOL = Section(
    "pool",
    Field("command", COMMAND, None, COMMAND_DOC, required=True, instead=("python", "wsgi", "asgi"), reload="roll"),
    Field(
        "workers",
        OneOf(WORKERS, AUTO),
        "1",
        "A count, or auto: as many as the CPU limit of the cgroup, without one as many as $ENTRYPOINT_CPUS, else 1. "
        "$WEB_CONCURRENCY sets it for the pool `web`, or the only pool, when it is not set here.",
    ),
    *PROCESS,
    Field(
        "sockets",
        ListOf(name_text("socket"), "list of sockets", most=100),
        [],
        "Sockets that the workers inherit, from fd 3 on.", reload="roll",
    ),
    Field(
        "after",
        ListOf(name_text("pool"), "list of pools"),
        [],
        "Start when those pools are ready or have completed; stop before them. While one of them has failed (see "
        "`restart.policy`), never.",
    ),
    Field(
        "critical",
        boolean(),
        "true",
        "false: its failure or absence affects neither readiness nor the exit code; it is retried for ever, or with "
        "`restart.policy: never` has completed then, and what comes `after` it starts.",
    ),
    Field("ready", READY, {}, "When a worker counts as ready."),
    Field("boot_timeout", duration(), "60s", "From a worker's start to ready; then it has failed. 0 = no limit."),
    Field("heartbeat", HEARTBEAT, {}, "Signs of life that a worker owes."),
    Field(
        "liveness",
        LIVENESS,
        None,
        "A probe of a ready worker, for programs that cannot beat: exactly one of `exec`, `http` and `tcp`. With more "
        "than one worker an `http` or `tcp` must contain `$(ENTRYPOINT_SLOT)`: a shared socket would answer for "
        "another worker.",
    ),
    Field("stop", STOP, {}, "How a worker is stopped."),
    Field("lifecycle", LIFECYCLE, {}, "Commands around a worker's life."),
    Field("restart", RESTART, {}, "When a worker is replaced."),
    Field("rollout", ROLLOUT, {}, "How the workers are replaced by those of a new configuration."),
    Field(
        "min_ready_workers",
        share(),
        "1",
        "As many ready workers are enough for `/readyz` and `entrypoint probe ready`: a count, or `50%`.",
    ),
    Field(
        "output",
        choice("inherit", "json"),
        "inherit",
        "inherit: workers write to the master's stdout and stderr; json: each line of theirs becomes a JSON line on "
        "the master's stdout, with `pool`, `slot`, `pid` and `stream`. Where the master's stdout is a socket, or a "
        "pipe of another user, a worker that makes it non-blocking (Node.js does so with pipes) does so for all that "
        "inherit it, and their lines can be lost.", reload="roll",
    ),
    later=(
        "python", "wsgi", "asgi", "recycle", "scaling", "preload", "refork_after", "hooks", "metrics",
    ),
)  # fmt: skip
INIT = Section(
    "init command",
    Field("name", name_text("name"), None, "Its name in messages.", required=True),
    Field("command", COMMAND, None, COMMAND_DOC, required=True),
    Field("timeout", duration(), "0s", "It is killed and has failed after this time; 0 = none."),
    *PROCESS,
)
SOCKET = Section(
    "socket",
    Field(
        "bind",
        text("address", least=1),
        None,
        "`HOST:PORT` (an IP address or localhost), `:PORT` (every address, v4 and v6), `[IPV6]:PORT`, `unix:/PATH`, "
        "or `fd:N`, an open socket that the master inherited.",
        required=True,
        reload="roll",
    ),
    Field("backlog", integer(1, 1_048_576), "2048", "Connections that may wait; the kernel caps it at somaxconn."),
    Field(
        "reuse_port", boolean(), "false", "TCP: one SO_REUSEPORT socket per worker, held by the master.", reload="roll"
    ),
    Field("mode", octal(), None, "unix: permission bits."),
    Field("owner", text("USER or USER:GROUP", least=1), None, "unix: who owns it."),
)
SHUTDOWN = Section(
    "shutdown",
    Field(
        "drain_delay",
        DRAIN_DELAY,
        "auto",
        "Everything keeps serving this long after SIGTERM, so that load balancers can look away; auto: 5s inside "
        "Kubernetes, else 0s.",
    ),
    Field(
        "grace_period",
        duration(),
        "0s",
        "What the platform gives from SIGTERM to SIGKILL; 0 = unknown. Drain delay, the longest chain of stop "
        "timeouts along `after`, and 2s must fit.",
    ),
    Field("termination_log", ABSOLUTE_PATH, "/dev/termination-log", "Gets the reason of the end if it exists."),
)
CONTROL = Section(
    "control",
    Field("enabled", boolean(), "true", "false: no socket, and no command reaches this master."),
    Field(
        "socket",
        CONTROL_SOCKET,
        "auto",
        "A unix socket of mode 0600. auto: `control.sock` in the first writable of /run/entrypoint, "
        "$XDG_RUNTIME_DIR/entrypoint, /dev/shm/entrypoint-UID.",
    ),
)
RELOAD = Section(
    "reload",
    Field("watch", boolean(), "false", "true: whenever the file changes, a mounted ConfigMap included."),
)
SIGNALS = MapOf(
    choice("shutdown", "quit", "restart", "reload", "scale_up", "scale_down", "forward", "ignore"),
    "mapping of signals",
    mapped_signal,
    MAPPED_SIGNAL,
    known=MAPPED_SIGNALS,
)
SIGNAL_DEFAULTS = {"HUP": "restart", "USR1": "forward", "USR2": "forward", "WINCH": "ignore"}
LOG = Section(
    "log",
    Field("level", choice("debug", "info", "warning", "error"), "info", "The least severe event that is written."),
    Field(
        "format",
        choice("auto", "json", "console"),
        "auto",
        "auto: console on a terminal, else JSON lines.",
        reload="restart",
    ),
)
OBSERVER = Section(
    "observer",
    Field("bind", text("address", least=1), ":9180", "As of a socket, but for `fd:N`; port 0 is any that is free."),
    Field("enabled", boolean(), "true", "false: no HTTP."),
)
ROOT = Section(
    "configuration",
    Field(
        "pools",
        MapOf(POOL, "mapping of pools", units.parse_name, units.NAME, least=1),
        None,
        "Workers started the same way, by name.",
        required=True,
    ),
    Field(
        "init",
        ListOf(INIT, "list of init commands", most=100),
        [],
        "One-shot commands, once per life of the master, in order, before any pool.",
        reload="restart",
    ),
    Field(
        "sockets",
        MapOf(SOCKET, "mapping of sockets", units.parse_name, units.NAME),
        {},
        "Sockets that the master binds and holds, by name.",
    ),
    Field("shutdown", SHUTDOWN, {}, "The end.", reload="restart"),
    Field("control", CONTROL, {}, "The socket that the control commands speak to.", reload="restart"),
    Field("reload", RELOAD, {}, "What makes the master read its configuration again.", reload="restart"),
    Field(
        "signals",
        SIGNALS,
        SIGNAL_DEFAULTS,
        "What the master does on a signal: shutdown, quit, restart (read the file again, then roll every pool), reload "
        "(roll what has changed), scale_up, scale_down, forward (to every worker), or ignore. What is not listed "
        "keeps its default. TERM, CHLD, KILL, STOP and the signals of faults cannot be mapped.",
        reload="restart",
    ),
    Field("log", LOG, {}, "The master's own log."),
    Field(
        "observer", OBSERVER, {}, "The process that serves metrics, probes and the status over HTTP.", reload="restart"
    ),
    free="x-",
)
