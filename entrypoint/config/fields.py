"""Every key of the configuration, in one table.

Validation, defaults, `entrypoint schema` and docs/CONFIG.md are all derived from it, so a key is written down once.
Defaults stand here as a user would write them.
"""

from __future__ import annotations

import os

from entrypoint.config import units
from entrypoint.config.kinds import (
    Field,
    ListOf,
    MapOf,
    OneOf,
    Scalar,
    Section,
    boolean,
    choice,
    duration,
    integer,
    name_text,
    number,
    octal,
    only_false,
    signal_name,
    size,
    text,
)

MAX_WORKERS = 10_000
MAX_TEXT = 131_072 - 1  # the kernel's limit for one argument or one NAME=value, without its NUL
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


def _limit(value: str) -> int:
    return -1 if value == "unlimited" else units.parse_size(value)


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("not an absolute path")
    return value


def _workers(value: str) -> int | str:
    if value == "auto":
        return value
    try:
        count = units.parse_int(value)
    except ValueError:
        raise ValueError("not a count") from None
    if not 1 <= count <= MAX_WORKERS:
        raise ValueError(f"out of range 1 to {MAX_WORKERS}")
    return count


def _true(value: str) -> bool:
    if not units.parse_bool(value):
        raise ValueError("must be true")
    return True


def _drain_delay(value: str) -> float | str:
    return value if value == "auto" else units.parse_duration(value)


def _show_drain_delay(value: float | str) -> str:
    return value if isinstance(value, str) else units.format_duration(value)


def _argument(value: str) -> str:
    if len(os.fsencode(value)) > MAX_TEXT:
        raise ValueError(f"longer than {MAX_TEXT} bytes")
    return value


PATH = text("path", least=1)
SECRET = text("text", parse=_argument, secret=True)
WORKERS = Scalar(
    f"count 1 to {MAX_WORKERS}, or auto",
    _workers,
    {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": MAX_WORKERS},
            {"type": "string", "pattern": r"^(auto|[1-9][0-9]{0,4})$|\$\{"},
        ]
    },
)
DRAIN_DELAY = Scalar(
    "duration, or auto",
    _drain_delay,
    {
        "anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": rf"^(auto|\d+(\.\d+)?|(?=.)({units.DURATION}))$|\$\{{"},
        ]
    },
    _show_drain_delay,
)
LIMIT = Scalar(
    "number, size, or unlimited",
    _limit,
    {
        "anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": rf"^(unlimited|{units.SIZE})$|\$\{{"},
        ]
    },
    lambda value: "unlimited" if value < 0 else value,
)
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
    Field("auto", Scalar("true", _true, {"const": True}), required=True, doc="Must be true."),
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
    ),
    Field("env_from", ListOf(PATH, "list of paths", most=100), [], "Dotenv files, read at each spawn; `env` wins."),
    Field("cwd", PATH, None, "Working directory; default: the master's."),
    Field(
        "user",
        text("user name or uid", least=1),
        None,
        "User to run as; HOME, USER and the supplementary groups follow. The group of a uid without an entry in "
        "/etc/passwd is the master's.",
    ),
    Field("group", text("group name or gid", least=1), None, "Primary group; default: the user's."),
    Field("umask", octal(), None, "File mode mask, octal; default: the master's."),
    Field("nice", integer(-20, 19), "0", "Added to the nice value."),
    Field(
        "rlimits",
        Section(
            "resource limits", *(Field(name, OneOf(LIMIT, LIMITS), None, f"Limit: {doc}.") for name, doc in RLIMITS)
        ),
        None,
        "Resource limits: `unlimited`, a number for both, or `{soft: ..., hard: ...}`.",
    ),
    Field(
        "oom_score_adj", integer(-1000, 1000), None, "Preference of the kernel's OOM killer; default: raised a little."
    ),
)
COMMAND = ListOf(text("text", parse=_argument), "list of words", least=1)
COMMAND_DOC = (
    "The program and its arguments; never a shell. `$(NAME)` is replaced by the variable NAME of the worker, "
    "as in a Kubernetes `args`."
)

READY = Section(
    "readiness",
    Field("when", choice("alive", later=("notify", "accepting")), "alive", "What proves that a worker can work."),
    Field("after", duration(), "10s", "alive: this long after its start."),
    later=("exec", "http", "tcp", "period", "timeout", "failure_threshold", "initial_delay"),
)
STOP = Section(
    "stop",
    Field("signal", signal_name(), "TERM", "The signal that asks a worker to stop."),
    Field("timeout", duration(0.1), "20s", "From the first step of the stop to SIGKILL; covers `quiesce`."),
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
        "Whether a worker that ends by itself is replaced. With `never` and `on-failure` a pool can complete.",
    ),
    Field("min_uptime", duration(), "10s", "A worker that ends earlier has failed."),
    Field("give_up_after", integer(0, 1_000_000), "5", "Failures in a row, per pool; 0 = never give up."),
    Field("backoff", BACKOFF, {}, "Delays between failures; the first replacement comes at once."),
)
POOL = Section(
    "pool",
    Field("command", COMMAND, None, COMMAND_DOC, required=True, instead=("python", "wsgi", "asgi")),
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
        "Sockets that the workers inherit, from fd 3 on.",
    ),
    Field(
        "after",
        ListOf(name_text("pool"), "list of pools"),
        [],
        "Start when those pools are ready; stop before them.",
    ),
    Field(
        "critical",
        boolean(),
        "true",
        "false: its failure or absence affects neither readiness nor the exit code; it is retried for ever.",
    ),
    Field("ready", READY, {}, "When a worker counts as ready."),
    Field("stop", STOP, {}, "How a worker is stopped."),
    Field("restart", RESTART, {}, "When a worker is replaced."),
    Field("output", choice("inherit", later=("json",)), "inherit", "Workers write to the master's stdout and stderr."),
    later=(
        "python", "wsgi", "asgi", "boot_timeout", "heartbeat", "lifecycle", "rollout", "recycle", "scaling",
        "liveness", "min_ready_workers", "preload", "refork_after", "hooks", "metrics",
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
    ),
    Field("backlog", integer(1, 1_048_576), "2048", "Connections that may wait; the kernel caps it at somaxconn."),
    Field("reuse_port", boolean(), "false", "TCP: one SO_REUSEPORT socket per worker, held by the master."),
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
    Field(
        "termination_log", text("path", parse=_path), "/dev/termination-log", "Gets the reason of the end if it exists."
    ),
)
LOG = Section(
    "log",
    Field("level", choice("debug", "info", "warning", "error"), "info", "The least severe event that is written."),
    Field("format", choice("auto", "json", "console"), "auto", "auto: console on a terminal, else JSON lines."),
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
    ),
    Field(
        "sockets",
        MapOf(SOCKET, "mapping of sockets", units.parse_name, units.NAME),
        {},
        "Sockets that the master binds and holds, by name.",
    ),
    Field("shutdown", SHUTDOWN, {}, "The end."),
    Field("log", LOG, {}, "The master's own log."),
    Field(
        "observer",
        Section("observer", Field("enabled", only_false(), required=True, doc="Only false."), later=("bind",)),
        doc="Only `{enabled: false}`.",
    ),
    Field(
        "control",
        Section("control", Field("enabled", only_false(), required=True, doc="Only false."), later=("socket",)),
        doc="Only `{enabled: false}`.",
    ),
    Field(
        "reload",
        Section("reload", Field("watch", only_false(), required=True, doc="Only false.")),
        doc="Only `{watch: false}`.",
    ),
    later=("signals",),
)
