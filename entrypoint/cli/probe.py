"""`entrypoint probe`: for a HEALTHCHECK and for exec probes, by its exit code.

`probe live` in a container in init mode, where there is no control socket: the master is alive if it is process 1,
which is judged by its command line. So there it exits with 0 when process 1 runs `entrypoint run` in init mode. It is
not seen where process 1 is another program (`docker run --init`, a shared process namespace), where /proc hides the
command lines of others, or when the probe has another $ENTRYPOINT_CONFIG than the master.
"""

from __future__ import annotations

import os

from entrypoint.cli import client
from entrypoint.cli.common import EXIT_FAILED, complain

TIME = 1.0  # seconds

WHAT = {"live": ("ping", "not live"), "ready": ("ready", "not ready"), "startup": ("startup", "not started")}


def main(argv: list[str]) -> int:
    """Exit code 0 for yes, 1 for no with the reason on stderr."""
    if len(argv) == 1 and argv[0] in WHAT:
        what, socket = argv[0], None  # the usual case, without argparse: a third of the time
    else:
        options = _options(argv)
        if isinstance(options, int):
            return options
        what, socket = options
    question, no = WHAT[what]
    try:
        answer = client.ask(socket, {"ask": question}, TIME)
        if answer.get("ok") is True:
            return 0
        reason = str(answer.get("reason") or "no reason given")
    except client.NoSocketError as error:
        if question == "ping" and not socket and init_mode(command_line(1)):
            return 0
        reason = str(error)
    except client.ControlError as error:
        reason = str(error)
    reason = reason.removeprefix("cannot reach the master: ")
    complain(f"{no}: {reason}")
    return EXIT_FAILED


def _options(argv: list[str]) -> tuple[str, str | None] | int:
    from entrypoint.cli.arguments import parse

    options = parse("probe", argv)
    return options if isinstance(options, int) else (options.choice, options.socket)


def command_line(pid: int) -> list[str]:
    """What a process was executed with; empty when it cannot be seen."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return os.fsdecode(file.read()).split("\0")[:-1]
    except OSError:
        return []


def init_mode(words: list[str]) -> bool:
    """Whether a command line is one of `entrypoint run` without a configuration."""
    from entrypoint.cli.run import UsageError, config_file, parse  # only where there is no socket

    rest = list(words)
    if rest and os.path.basename(rest[0]).startswith("python"):
        rest.pop(0)
        while rest and rest[0].startswith("-"):  # -I -S, -m
            rest.pop(0)
    if len(rest) < 2 or rest[1] != "run" or "entrypoint" not in rest[0].split("/")[-2:]:  # .../entrypoint/__main__.py
        return False
    try:
        options = parse(rest[2:])
    except UsageError:
        return False
    return bool(options.command) and not config_file(options)
