"""`entrypoint scale`, `restart`, `reload`, `start`, `stop`, `signal`: what can be asked of a running master."""

from __future__ import annotations

import signal
from typing import Any

from entrypoint.cli import client
from entrypoint.cli.arguments import parse
from entrypoint.cli.common import EXIT_FAILED, complain, printable, tell
from entrypoint.commands import REQUESTS


def main(name: str, argv: list[str]) -> int:
    """Run the command of that name; returns the exit code. Raises OutputError only for `--help`."""
    options = parse(name, argv)
    if isinstance(options, int):
        return options
    # What the master has done is done, and a rollout is waited for, whether or not somebody reads about it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    given = vars(options)
    if isinstance(given.get("pool"), tuple):  # POOL[/SLOT]
        given["pool"], given["slot"] = given["pool"]
    request = {"ask": name, **{key: given[key] for key in REQUESTS[name]}}
    if "wait" in request:
        return client.guarded(lambda: _roll(options.socket, request))
    return client.guarded(lambda: _order(options.socket, request))


def _order(socket: str | None, request: dict[str, Any]) -> int:
    """Ask for something that is done at once. Raises ControlError."""
    client.ask(socket, request)
    return 0


def _roll(socket: str | None, request: dict[str, Any]) -> int:
    """Ask for rollouts, say which have begun and, with `wait`, how they ended. Raises ControlError."""
    wait = request["wait"]
    with client.Connection(socket, None if wait else client.ANSWER_TIME) as connection:
        rollouts = connection.ask(request).get("rollouts") or []
        for rollout in rollouts:
            tell(f"{_named(rollout)} has begun\n")
        if not rollouts:
            tell("nothing to replace\n")
        if not wait or not rollouts:
            return 0
        try:
            results = connection.next().get("results") or []
        except client.UnreachableError:
            raise client.ControlError(
                f"cannot wait for the end of the {request['ask']}: the master went away"
            ) from None
    good = [r for r in results if r.get("result") == "completed"]
    for result in good:
        tell(f"{_named(result)} completed\n")
    for result in results:
        if result not in good:
            reason = f": {result['reason']}" if result.get("reason") else ""
            complain(f"{_named(result)} {result.get('result')}{reason}")
    return 0 if len(good) == len(results) >= len(rollouts) else EXIT_FAILED


def _named(rollout: dict[str, Any]) -> str:
    return printable(f"{rollout.get('pool')}: rollout to generation {rollout.get('generation')}")
