"""Units of the configuration: durations, sizes, signals, counts, modes, names.

Each `parse_x` takes text and returns the value in one unit, or raises ValueError with a reason that does not
repeat the text (it may be a secret); the caller names the place and decides what to show.

The patterns are for the JSON Schema, and say what is parsed here without them: `re` takes 5 ms to import, with `enum`,
before the first worker can be started.
"""

from __future__ import annotations

from entrypoint.config.spec import Share
from entrypoint.linux.signals import NUMBERS

MAX_DURATION = 366 * 86400.0
MAX_SIZE = 2**63 - 1
NAME = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"

_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)"
DURATION = rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?"
SIZE = r"([0-9]{1,19})(?:\.([0-9]{1,19}))?(Ki|Mi|Gi|Ti|Pi|Ei|m|k|M|G|T|P|E|[eE][0-9]{1,2})?"
REAL_TIME = r"RTMIN(\+[0-9]{1,2})?|RTMAX(-[0-9]{1,2})?"
_NAMES = "abcdefghijklmnopqrstuvwxyz0123456789-"
_TOWARDS = {"RTMIN": "+", "RTMAX": "-"}
_POWERS = {"k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


def parse_duration(text: str) -> float:
    """Seconds of `500ms`, `30s`, `1m30s`, `2h`, or a bare number of seconds."""
    if _is_number(text):
        seconds = float(text)
    else:
        parts = _parts(text)
        # Milliseconds are added as a quotient: 0.1 s must be the same number as 100ms.
        seconds = parts["h"] * 3600 + parts["m"] * 60 + parts["s"] + parts["ms"] / 1000
    if seconds > MAX_DURATION:
        raise ValueError("longer than a year")
    return seconds


def _parts(text: str) -> dict[str, float]:
    """The numbers of a duration by unit. Raises ValueError."""
    parts = dict.fromkeys(("h", "m", "s", "ms"), 0.0)
    left, rest = list(parts), text
    while rest or not text:
        number, rest = _leading(rest, "0123456789.")
        unit, rest = _leading(rest, "hms")
        if not _is_number(number) or unit not in left:
            raise ValueError("not a duration such as 500ms, 30s, 1m30s")
        parts[unit] = float(number)
        del left[: left.index(unit) + 1]
    return parts


def _leading(text: str, characters: str) -> tuple[str, str]:
    """What the text begins with of these characters, and the rest."""
    rest = text.lstrip(characters)
    return text[: len(text) - len(rest)], rest


def _is_digits(text: str, most: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= most


def _is_number(text: str) -> bool:
    whole, dot, fraction = text.partition(".")
    return _is_digits(whole, 15) and (not dot or _is_digits(fraction, 9))


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as exactly these seconds (to the nanosecond)."""
    if seconds == 0:
        return "0s"
    milli = round(seconds * 1000)
    if milli / 1000 != seconds:
        return f"{seconds:.9f}".rstrip("0").rstrip(".")
    text = ""
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milli = divmod(milli, size)
        text += f"{count}{unit}" if count else ""
    return text


def parse_size(text: str) -> int:
    """Bytes of a Kubernetes quantity (`512Mi`, `1G`, `1.5Gi`, `1e9`), rounded up."""
    number, suffix = _leading(text, "0123456789.")
    whole, dot, fraction = number.partition(".")
    exponent = suffix[:1] in ("e", "E") and _is_digits(suffix[1:], 2)
    if not (
        _is_digits(whole, 19)
        and (not dot or _is_digits(fraction, 19))
        and (suffix in ("", "m", "Ki", *_POWERS, *(f"{power}i" for power in _POWERS if power != "k")) or exponent)
    ):
        raise ValueError("not a size such as 512Mi, 1G")
    divisor = 10 ** len(fraction)
    factor = 1
    if suffix.endswith("i"):
        factor = 1024 ** _POWERS["k" if suffix[0] == "K" else suffix[0]]
    elif suffix == "m":
        divisor *= 1000
    elif suffix[1:]:
        factor = 10 ** int(suffix[1:])
    elif suffix:
        factor = 1000 ** _POWERS[suffix]
    size: int = -(-int(whole + fraction) * factor // divisor)
    if size > MAX_SIZE:
        raise ValueError("larger than 8Ei")
    return size


def format_size(size: int) -> str:
    """The shortest exact text that `parse_size` reads as this many bytes."""
    for power, suffix in ((6, "Ei"), (5, "Pi"), (4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{suffix}"
    return str(size)


def signal_number(text: str) -> int:
    """The number of `TERM`, `SIGTERM`, `sigterm`, `15`; of `RTMIN+3`, `SIGRTMAX-1`, as Docker and systemd do it."""
    name = text.upper().removeprefix("SIG") if text.isascii() else ""
    if name.isdecimal() and len(text) < 3:
        number = int(name)
    elif name[:5] in ("RTMIN", "RTMAX") and name[5:] and name[5] == _TOWARDS[name[:5]] and _is_digits(name[6:], 2):
        number = NUMBERS[name[:5]] + int(name[5:])
        number = number if NUMBERS["RTMIN"] <= number <= NUMBERS["RTMAX"] else 0
    else:
        number = NUMBERS.get(name, 0)
    if not 1 <= number <= 64 or number in (32, 33):  # 32 and 33 belong to the C library
        raise ValueError("not a signal such as TERM, SIGINT, RTMIN+3, 15")
    return number


def parse_int(text: str) -> int:
    """A decimal integer; no other notation, so that 010 and 0x10 are never read as something unexpected."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or (len(digits) > 1 and digits[0] == "0"):
        raise ValueError("not a whole number")
    if len(digits) > 18:
        raise ValueError("out of range")
    return int(text)


def parse_number(text: str) -> float:
    """A decimal number without sign or exponent."""
    if not _is_number(text):
        raise ValueError("not a number")
    return float(text)


def parse_share(text: str) -> Share:
    """A count, or a percentage of a pool's workers: `2`, `25%`."""
    try:
        return Share(parse_int(text.removesuffix("%")), text.endswith("%"))
    except ValueError:
        raise ValueError("not a count or a percentage such as 2, 25%") from None


def format_share(share: Share) -> int | str:
    """What `parse_share` reads as this share."""
    return f"{share.value:g}%" if share.percent else int(share.value)


def parse_octal(text: str) -> int:
    """Permission bits as octal text: `022`, `0o022`, `660`."""
    digits = text.removeprefix("0o")
    if not _is_digits(digits, 4) or "8" in digits or "9" in digits or int(digits, 8) > 0o777:
        raise ValueError("not an octal mode such as 022")
    return int(digits, 8)


def parse_bool(text: str) -> bool:
    """`true` or `false`; yes, no, on and off are not guessed at."""
    if text not in ("true", "false"):
        raise ValueError("not true or false")
    return text == "true"


def parse_name(text: str) -> str:
    """A name of a pool, socket or init command: a DNS label."""
    if not 1 <= len(text) <= 63 or text.strip(_NAMES) or "-" in (text[0], text[-1]):
        raise ValueError("not a name (a-z, 0-9 and -, at most 63)")
    return text


def shorten(text: str, limit: int = 60) -> str:
    """Text of a bounded length for a message."""
    return text if len(text) <= limit else f"{text[:limit]}..."
