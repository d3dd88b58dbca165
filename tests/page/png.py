"""As much of PNG as screenshots use: eight bits a channel, no palette, not interlaced."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {2: 3, 6: 4}  # by colour type: RGB, RGBA


class Picture(NamedTuple):
    """A decoded picture."""

    width: int
    height: int
    colours: Counter[bytes]  # of its pixels: red, green, blue


def decode(data: bytes) -> Picture:
    """Raises ValueError for what is no such picture."""
    if not data.startswith(SIGNATURE):
        raise ValueError("no PNG")
    place, packed, head = len(SIGNATURE), b"", b""
    while place < len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + size]
        (checksum,) = struct.unpack_from(">I", data, place + 8 + size)
        if zlib.crc32(kind + body) != checksum:
            raise ValueError("a damaged PNG")
        if kind == b"IHDR":
            head = body
        elif kind == b"IDAT":
            packed += body
        place += 12 + size
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head)
    if depth != 8 or colour not in CHANNELS or interlaced:
        raise ValueError("no PNG as browsers make them")
    return Picture(width, height, _colours(zlib.decompress(packed), width, height, CHANNELS[colour]))


def _colours(raw: bytes, width: int, height: int, step: int) -> Counter[bytes]:
    size = width * step
    above = bytes(size)
    lines: Counter[bytes] = Counter()  # most lines of a page are there many times
    for start in range(0, height * (size + 1), size + 1):
        above = _unfiltered(raw[start], raw[start + 1 : start + 1 + size], above, step)
        lines[above] += 1
    counted: Counter[bytes] = Counter()
    for line, times in lines.items():
        for colour, count in Counter(line[at : at + 3] for at in range(0, size, step)).items():
            counted[colour] += times * count
    return counted


def _unfiltered(kind: int, line: bytes, above: bytes, step: int) -> bytes:
    if kind == 0:
        return line
    if kind == 2:
        return _sum(line, above)
    found = bytearray(line)
    for at, value in enumerate(line):
        left, corner = (found[at - step], above[at - step]) if at >= step else (0, 0)
        guess = {1: left, 3: (left + above[at]) // 2, 4: _nearest(left, above[at], corner)}[kind]
        found[at] = (value + guess) & 0xFF
    return bytes(found)


def _sum(one: bytes, other: bytes) -> bytes:
    """Byte by byte, all at once, since pictures have millions: the highest bits are added without a carry."""
    size = len(one)
    low = int.from_bytes(b"\x7f" * size, "big")
    a, b = int.from_bytes(one, "big"), int.from_bytes(other, "big")
    return (((a & low) + (b & low)) ^ ((a ^ b) & ~low)).to_bytes(size, "big")


def _nearest(left: int, up: int, corner: int) -> int:
    """Of the three, the one next to left + up - corner."""
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if to_left <= to_up and to_left <= to_corner:
        return left
    return up if to_up <= to_corner else corner
