"""From what a worker writes to lines of the log."""

from __future__ import annotations

import json
import time
from json.encoder import encode_basestring as quote
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_LINE = 1 << 16  # bytes of a worker's line; a longer one is cut
OURS = frozenset(("stream", "pool", "slot", "pid"))  # keys that a worker cannot have in its own JSON


class Framed:
    """What came of some bytes."""

    __slots__ = ("consumed", "lines", "text")

    def __init__(self, text: bytes, lines: list[str], consumed: int) -> None:
        self.text = text  # for the log: whole lines
        self.lines = lines  # as the worker wrote them
        self.consumed = consumed  # bytes of the worker's


class Framer:
    """Frames the lines of one stream of one worker."""

    __slots__ = ("_where",)

    def __init__(self, stream: str, pool: str, slot: int, pid: int) -> None:
        self._where = f'"stream": {quote(stream)}, "pool": {quote(pool)}, "slot": {slot}, "pid": {pid}'

    def frame(self, data: bytes, now: str, *, final: bool) -> Framed:
        """Frame the whole lines at the beginning of `data`, of at most MAX_LINE bytes in all, or cut one.

        `final`: nothing follows, so that the last line is whole without its end. `now` is the timestamp.
        """
        if len(data) > MAX_LINE:
            end = data.rfind(b"\n", 0, MAX_LINE + 1) + 1
            if not end:
                return self._cut(data, now)
        else:
            end = len(data) if final else data.rfind(b"\n") + 1
        if not end:
            return Framed(b"", [], 0)
        block = data[:end]
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")
        lines = block.decode("utf-8", "replace").split("\n")
        if not lines[-1]:
            lines.pop()
        head = f'{{"timestamp": "{now}", {self._where}, "message": '
        text = "\n".join([self._merge(line, now) if line[:1] == "{" else f"{head}{quote(line)}}}" for line in lines])
        return Framed(f"{text}\n".encode(), lines, end)

    def _cut(self, data: bytes, now: str) -> Framed:
        """The beginning of a line that is too long; the rest of it is the next line."""
        end = MAX_LINE
        while end > MAX_LINE - 3 and data[end] & 0xC0 == 0x80:  # not within a character
            end -= 1
        line = data[:end].decode("utf-8", "replace")
        text = f'{{"timestamp": "{now}", {self._where}, "message": {quote(line)}, "truncated": true}}\n'
        return Framed(text.encode(), [line], end)

    def _merge(self, line: str, now: str) -> str:
        """A line that may be a JSON object: its own keys beside ours."""
        try:
            own, end = _scan(line, 0)
        except (ValueError, StopIteration, RecursionError):
            own, end = None, 0
        if own is None or (end != len(line) and line[end:].strip()):
            return f'{{"timestamp": "{now}", {self._where}, "message": {quote(line)}}}'
        stamp = "" if "timestamp" in own else f'"timestamp": "{now}", '
        if not own:
            return f"{{{stamp}{self._where}}}"
        if OURS.isdisjoint(own):  # as it stands: to write it anew would take as long as all the rest
            return f"{{{stamp}{self._where}, {line[1:end]}"
        return f"{{{stamp}{self._where}, {json.dumps(_renamed(own))[1:]}"


def _renamed(own: dict[str, Any]) -> dict[str, Any]:
    """Keys that would say something else than ours get a `_` at the end, or as many as it takes."""
    made = {}
    for key, value in own.items():
        name = key
        while name in OURS or (name != key and name in own):
            name += "_"
        made[name] = value
    return made


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name}")


# What `json.loads` calls, which would look for white space with regular expressions around it.
_scan: Callable[[str, int], tuple[dict[str, Any], int]] = json.JSONDecoder(parse_constant=_refuse).scan_once  # type: ignore[attr-defined] # typeshed leaves it out


class Clock:
    """Timestamps as RFC 3339 in UTC with microseconds."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def now(self) -> str:
        """The time of day."""
        second, fraction = divmod(time.time_ns() // 1000, 1_000_000)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{fraction:06d}Z"
