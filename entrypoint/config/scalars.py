"""The single values that only one or two keys have: each with its own rules and spelling."""

from __future__ import annotations

import os

from entrypoint.config import addresses, units
from entrypoint.config.kinds import MAX_WORKERS, SIGNAL_NAMES, Scalar, signal_pattern, text
from entrypoint.linux.signals import signal_name

MAX_TEXT = 131_072 - 1  # the kernel's limit for one argument or one NAME=value, without its NUL
# Signals that always mean the same, and why.
FIXED_SIGNALS = {
    "TERM": "it is the graceful shutdown",
    "CHLD": "it tells of the end of a child",
    "KILL": "nothing can catch it",
    "STOP": "nothing can catch it",
    **dict.fromkeys(("SEGV", "BUS", "FPE", "ILL"), "it is a fault of the master itself"),
}
_MAPPED_NAMES = tuple(n for n in SIGNAL_NAMES if signal_name(units.signal_number(n)) not in FIXED_SIGNALS)
MAPPED_SIGNAL = signal_pattern(_MAPPED_NAMES)
# What a variable may call them: some shells and platforms have no `+` in the name of one, so a number will do.
MAPPED_SIGNALS = (*_MAPPED_NAMES, *(f"RTMIN+{n}" for n in range(1, 31)), *(str(n) for n in range(1, 65)))


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


def _heartbeat(value: str) -> float:
    seconds = units.parse_duration(value)
    if 0 < seconds < 1:
        raise ValueError("less than 1s (0 = no heartbeat)")
    return seconds


def _control_socket(value: str) -> str:
    if value != "auto" and not value.startswith("/"):
        raise ValueError("not auto or an absolute path")
    if len(os.fsencode(value)) > addresses.SUN_PATH:
        raise ValueError(f"longer than {addresses.SUN_PATH} bytes")
    return value


def mapped_signal(key: str) -> int:
    """The number of a signal that can be mapped; raises ValueError."""
    number = units.signal_number(key)
    reason = FIXED_SIGNALS.get(signal_name(number))
    if reason:
        raise ValueError(f"cannot be mapped: {reason}")
    return number


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
ABSOLUTE_PATH = text("path", parse=_path)
CONTROL_SOCKET = text("path, or auto", parse=_control_socket)
WORD = text("text", parse=_argument, per_worker=True)
URL = text("URL", parse=addresses.check_url, per_worker=True)
HOST_PORT = text("HOST:PORT", parse=addresses.check_host_port, per_worker=True)
SECRET = text("text", parse=_argument, secret=True, per_worker=True)
TRUE = Scalar("true", _true, {"const": True})
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
HEARTBEAT_TIMEOUT = Scalar(
    "duration, 0s or at least 1s",
    _heartbeat,
    {
        "anyOf": [
            {"const": 0},
            {"type": "number", "minimum": 1},
            {"type": "string", "pattern": rf"^(\d+(\.\d+)?|(?=.)({units.DURATION}))$|\$\{{"},
        ]
    },
    units.format_duration,
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
