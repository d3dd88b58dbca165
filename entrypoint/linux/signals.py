"""Signals by number and by name, without `enum`: the module `signal` takes 4 ms to make its own."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # the same functions and numbers

__all__ = ["NAMES", "NUMBERS", "signal", "signal_name"]

_OURS = sorted(name for name in dir(signal) if name.startswith("SIG") and not name.startswith("SIG_"))
NUMBERS = {name[3:]: int(getattr(signal, name)) for name in _OURS}
NAMES = {number: name for name, number in reversed(NUMBERS.items())}  # of several the first: CHLD before CLD


def signal_name(number: int) -> str:
    """`TERM` for 15, `RTMIN+3` for a real-time signal; the number where it has no name."""
    if number in NAMES:
        return NAMES[number]
    return f"RTMIN+{number - signal.SIGRTMIN}" if signal.SIGRTMIN < number < signal.SIGRTMAX else str(number)
