"""The commands: what each takes, what it says of itself, and what it asks of a running master.

One table for the command line (usage, help, parsers), the control server (which requests are valid), and the documents,
which a test compares with it. Plain data without an import: PID 1 reads it, too.
"""

from __future__ import annotations


class Option:
    """One thing that can be written after a command: `flags` (none: it has its place), its value, what it does."""

    __slots__ = ("flags", "help", "value")

    def __init__(self, flags: str, value: str, help: str) -> None:  # noqa: A002 - what everybody calls it
        self.flags = flags.split(", ") if flags else []
        self.value = value  # the name says what it has to be, see cli/arguments; empty: a switch
        self.help = help


class Command:
    """One command. `arguments` is its usage, and the grammar: what is optional, and what may be repeated."""

    __slots__ = ("arguments", "details", "examples", "help", "module", "options", "requests")

    def __init__(
        self,
        arguments: str,
        help: str,  # noqa: A002 - as above
        *options: Option,
        details: str = "",
        examples: tuple[str, ...],
        module: str = "control",
        requests: dict[str, dict[str, tuple[object, ...]]] | None = None,
    ) -> None:
        self.arguments = arguments
        self.help = help  # one line
        self.options = options
        self.details = details
        self.examples = examples
        self.module = module  # of entrypoint.cli
        self.requests = requests or {}  # what it asks on the control socket; `control` asks what has its own name


# What each request must carry, no more and no less: a type, or a range of numbers; None where null is allowed.
NAME, OR_NULL, FLAG = (str,), (str, None), (bool,)
COUNT, SLOT, SIGNAL = (range(10_001), None), (range(1_000_000), None), (range(1, 65),)

CONFIG = Option(
    "-c, --config",
    "FILE",
    "the configuration, - for standard input (default: $ENTRYPOINT_CONFIG, else /etc/entrypoint/config.yaml)",
)
SET = Option("--set", "PATH=VALUE", "lay a value over the configuration; may be repeated (default: nothing)")
SOCKET = Option(
    "--socket", "PATH", "the control socket (default: where the configuration says, or where masters put it)"
)
WAIT = Option("--wait", "", "until every rollout has ended; exit code 1 if one failed (default: until they have begun)")

COMMANDS = {
    "run": Command(
        "[-c FILE | --init] [--set PATH=VALUE]... [--workers N] [[--] COMMAND [ARG...]]",
        "run the pools of a configuration, or one command",
        CONFIG,
        Option("--init", "", "init mode, whatever configuration exists (default: only where there is none)"),
        SET,
        Option("--workers", "N", "how many workers, 1 to 10000 (default: as the configuration says; without one, one)"),
        Option("", "COMMAND", "what to run, with its arguments (default: as the configuration says)"),
        details="""\
With a configuration it runs the pools of the file. COMMAND replaces the command
of the pool `main`, or of the only pool, and --workers its size.

Without one it is in init mode, in place of tini: one worker, every signal
forwarded, its exit code is the master's. --workers makes it a pool that restarts.

What follows COMMAND is COMMAND's. `--` may be left out when COMMAND does not
begin with `-`.""",
        examples=(
            "entrypoint run -c config.yaml",
            "entrypoint run --set pools.web.workers=8",
            "entrypoint run -- redis-server --port 6379",
        ),
        module="run",
    ),
    "check": Command(
        "[-c FILE] [--set PATH=VALUE]... [--grace-period DURATION] [--json]",
        "print what a configuration resolves to, or every mistake in it",
        CONFIG,
        SET,
        Option(
            "--grace-period",
            "DURATION",
            "what the platform gives for a shutdown, such as 30s (default: shutdown.grace_period)",
        ),
        Option("--json", "", "print JSON, mistakes included (default: YAML; mistakes on standard error)"),
        details="Secrets are masked. The exit code is 78 when there are mistakes.",
        examples=("entrypoint check -c config.yaml --grace-period 30s",),
        module="check",
    ),
    "schema": Command(
        "",
        "print the JSON Schema of the configuration",
        details="For editors and charts: draft 2020-12.",
        examples=("entrypoint schema > schema.json",),
        module="schema",
    ),
    "status": Command(
        "[POOL] [--json] [--watch]",
        "show pools and workers",
        Option("", "POOL", "only this one (default: all)"),
        Option("--json", "", "print JSON; with --watch one object a line (default: tables)"),
        Option("--watch", "", "again every second, until Ctrl-C (default: once)"),
        SOCKET,
        examples=("entrypoint status web --watch",),
        module="status",
        requests={"status": {}},
    ),
    "scale": Command(
        "POOL COUNT|reset",
        "pin the number of a pool's workers",
        Option("", "POOL", "which pool"),
        Option("", "COUNT|reset", "how many workers, 0 to 10000; reset: the configuration decides again"),
        SOCKET,
        examples=("entrypoint scale web 8", "entrypoint scale web reset"),
        requests={"scale": {"pool": NAME, "count": COUNT}},
    ),
    "restart": Command(
        "POOL|--all [--wait]",
        "replace workers by new ones, the configuration unchanged",
        Option("", "POOL", "which pool"),
        Option("--all", "", "every pool"),
        WAIT,
        SOCKET,
        examples=("entrypoint restart web --wait",),
        requests={"restart": {"pool": OR_NULL, "wait": FLAG}},
    ),
    "reload": Command(
        "[--wait]",
        "read the configuration again, and replace the workers of the pools that changed",
        WAIT,
        SOCKET,
        examples=("entrypoint reload --wait",),
        requests={"reload": {"wait": FLAG}},
    ),
    "start": Command(
        "POOL",
        "start a pool that was stopped",
        Option("", "POOL", "which pool"),
        SOCKET,
        examples=("entrypoint start jobs",),
        requests={"start": {"pool": NAME}},
    ),
    "stop": Command(
        "POOL",
        "stop a pool's workers, until it is started",
        Option("", "POOL", "which pool"),
        SOCKET,
        examples=("entrypoint stop jobs",),
        requests={"stop": {"pool": NAME}},
    ),
    "signal": Command(
        "POOL[/SLOT] SIGNAL",
        "send a signal to one worker, or to every worker of a pool",
        Option("", "POOL[/SLOT]", "which worker, or which pool"),
        Option("", "SIGNAL", "TERM, SIGTERM, RTMIN+3 or 15"),
        SOCKET,
        examples=("entrypoint signal web/2 USR1",),
        requests={"signal": {"pool": NAME, "slot": SLOT, "signal": SIGNAL}},
    ),
    "probe": Command(
        "live|ready|startup",
        "ask whether the master is live, ready or started",
        Option("", "live|ready|startup", "live: it answers; ready: every critical pool is; startup: it was once"),
        SOCKET,
        details="For a HEALTHCHECK and exec probes. The exit code is 0 for yes and 1 for no, within\na second.",
        examples=("entrypoint probe live",),
        module="probe",
        requests={"ping": {}, "ready": {}, "startup": {}},
    ),
    "version": Command("", "print the version", examples=("entrypoint version",), module="version"),
    "help": Command(
        "[COMMAND]",
        "tell of a command and its options",
        Option("", "COMMAND", "which one (default: all, a line each)"),
        examples=("entrypoint help check",),
        module="help",
    ),
}

REQUESTS = {ask: keys for command in COMMANDS.values() for ask, keys in command.requests.items()}
