"""`entrypoint scale`, `restart`, `reload`, `start`, `stop`, `signal`: what can be asked of a running master."""

from __future__ import annotations

import argparse
from typing import Any

from entrypoint.cli import client
from entrypoint.cli.arguments import Parser, add_socket, parse
from entrypoint.cli.common import EXIT_FAILED, complain, printable, write
from entrypoint.config.units import parse_int, signal_number

MAX_WORKERS = 10_000  # as in the configuration


def main(name: str, argv: list[str]) -> int:
    """Run the command of that name; returns the exit code."""
    parser = _parser(name)
    options = parse(parser, argv)
    if isinstance(options, int):
        return options
    request = {"ask": name, **_request(name, options)}
    if name in ("restart", "reload"):
        return client.guarded(lambda: _roll(options.socket, request))
    return client.guarded(lambda: _order(options.socket, request))


def _parser(name: str) -> argparse.ArgumentParser:
    parser = Parser(prog=f"entrypoint {name}", description=DESCRIPTIONS[name])
    add_socket(parser)
    if name in ("scale", "start", "stop"):
        parser.add_argument("pool", metavar="POOL")
    if name == "scale":
        parser.add_argument("count", metavar="COUNT|reset", type=_count)
    if name == "restart":
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("pool", metavar="POOL", nargs="?")
        which.add_argument("--all", action="store_true", help="every pool")
    if name in ("restart", "reload"):
        parser.add_argument("--wait", action="store_true", help="until every rollout has ended; 1 if one failed")
    if name == "signal":
        parser.add_argument("target", metavar="POOL[/SLOT]", type=_target)
        parser.add_argument("signal", metavar="SIGNAL", type=_signal, help="TERM, SIGTERM, RTMIN+3 or 15")
    return parser


DESCRIPTIONS = {
    "scale": "Pin the number of a pool's workers, or let the configuration decide again (reset).",
    "restart": "Replace the workers of a pool by new ones, the configuration unchanged.",
    "reload": "Read the configuration again, and replace the workers of the pools that changed.",
    "start": "Start a pool that was stopped by hand.",
    "stop": "Stop a pool's workers, until it is started again.",
    "signal": "Send a signal to one worker, or to every worker of a pool.",
}


def _request(name: str, options: argparse.Namespace) -> dict[str, Any]:
    if name == "scale":
        return {"pool": options.pool, "count": None if options.count == "reset" else options.count}
    if name == "restart":
        return {"pool": None if options.all else options.pool, "wait": options.wait}
    if name == "reload":
        return {"wait": options.wait}
    if name == "signal":
        pool, slot = options.target
        return {"pool": pool, "slot": slot, "signal": options.signal}
    return {"pool": options.pool}


def _count(text: str) -> int | str:
    if text == "reset":
        return text
    try:
        count = parse_int(text)
    except ValueError:
        count = -1
    if not 0 <= count <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"not a count from 0 to {MAX_WORKERS}, nor reset: {text!r}")
    return count


def _target(text: str) -> tuple[str, int | None]:
    pool, slash, slot = text.partition("/")
    if pool and not slash:
        return pool, None
    if not pool or not (slot.isascii() and slot.isdecimal()) or len(slot) > 6:
        raise argparse.ArgumentTypeError(f"not a pool or a worker such as web or web/2: {text!r}")
    return pool, int(slot)


def _signal(text: str) -> int:
    try:
        return signal_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: {text!r}") from None


def _order(socket: str, request: dict[str, Any]) -> int:
    """Ask for something that is done at once. Raises ControlError."""
    client.ask(socket, request)
    return 0


def _roll(socket: str, request: dict[str, Any]) -> int:
    """Ask for rollouts, say which have begun and, with `wait`, how they ended. Raises ControlError."""
    wait = request["wait"]
    with client.Connection(socket, None if wait else client.ANSWER_TIME) as connection:
        rollouts = connection.ask(request).get("rollouts") or []
        for rollout in rollouts:
            write(f"{_named(rollout)} has begun\n")
        if not rollouts:
            write("nothing to replace\n")
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
        write(f"{_named(result)} completed\n")
    for result in results:
        if result not in good:
            reason = f": {result['reason']}" if result.get("reason") else ""
            complain(f"{_named(result)} {result.get('result')}{reason}")
    return 0 if len(good) == len(results) >= len(rollouts) else EXIT_FAILED


def _named(rollout: dict[str, Any]) -> str:
    return printable(f"{rollout.get('pool')}: rollout to generation {rollout.get('generation')}")
