"""Files that hold environment values: dotenv files and secrets. Used at load and in the forked child at each spawn.

No message ever holds a value: errors name the file, at most the line.
"""

from __future__ import annotations

import os
import stat

from entrypoint.config.location import STDIN

MAX_FILE = 1024 * 1024
MAX_VALUE = 131_072 - 1  # what the kernel takes as one NAME=value string, without its NUL

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'", "$": "$"}


class EnvFileError(Exception):
    """A file cannot be used: `cannot read PATH: reason`; `reason` alone is for callers that show the path otherwise."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot read {path}: {reason}")
        self.reason = reason


def read_bytes(path: str, limit: int = MAX_FILE) -> bytes:
    """The content of a regular file of at most `limit` bytes; raises EnvFileError.

    Opened without blocking, so that a FIFO in place of a file is an error and not a hang.
    """
    return _read(path, limit, stream=False)


def read_stream(path: str, limit: int = MAX_FILE) -> bytes:
    """What comes out of a pipe, or anything else that is no directory, up to its end; raises EnvFileError.

    Waits as long as that takes: not for anybody who has something else to do.
    """
    return _read(path, limit, stream=True)


def is_stream(path: str) -> bool:
    """Whether this is a pipe, a socket or a terminal, whose content is there once."""
    try:
        mode = (os.fstat(0) if path in STDIN else os.stat(path)).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def _read(path: str, limit: int, *, stream: bool) -> bytes:
    try:
        if stream and path in STDIN:
            fd = os.dup(0)  # a socket cannot be opened by its name
        else:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
            fd = os.open(path, flags if stream else flags | os.O_NONBLOCK)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode):
                raise EnvFileError(path, "it is a directory")
            if not stream and not stat.S_ISREG(mode):
                raise EnvFileError(path, "not a regular file")
            chunks = []
            room = limit + 1
            while room and (chunk := os.read(fd, room)):
                chunks.append(chunk)
                room -= len(chunk)
            if not room:
                raise EnvFileError(path, f"larger than {limit} bytes")
            return b"".join(chunks)
        finally:
            os.close(fd)
    except OSError as error:
        raise EnvFileError(path, (error.strerror or str(error)).lower()) from None
    except ValueError:
        raise EnvFileError(path, "not a file name") from None


def read_secret(path: str) -> str:
    """The content of a file as one value, without one trailing newline; raises EnvFileError."""
    content = read_bytes(path, MAX_VALUE + 1)
    value = _decode(path, content.removesuffix(b"\n").removesuffix(b"\r") if content.endswith(b"\n") else content)
    if len(value) > MAX_VALUE:
        raise EnvFileError(path, f"larger than {MAX_VALUE} bytes")
    return value


def read_env_file(path: str) -> dict[str, str]:
    r"""NAME -> value of a dotenv file; raises EnvFileError with the line that cannot be read.

    `NAME=value`, `export NAME=value`, `#` comments; 'single quotes' are literal, "double quotes" know \n \t \r
    \" \\ \$; both may span lines. Nothing is interpolated here: `$(NAME)` is resolved with the rest of the
    worker's environment. A later line wins.
    """
    return parse_env(path, _decode(path, read_bytes(path)))


def parse_env(path: str, text: str) -> dict[str, str]:
    """The work of `read_env_file` on text; `path` is for messages."""
    values: dict[str, str] = {}
    text = text.replace("\r\n", "\n")
    at, size = 0, len(text)
    while at < size:
        end = text.find("\n", at)
        end = size if end < 0 else end
        line = text[at:end].strip()
        if not line or line.startswith("#"):
            at = end + 1
            continue
        number = text.count("\n", 0, at) + 1
        name, equals, _ = text[at:end].partition("=")
        raw_at = value_at = at + len(name) + 1
        name = name.strip()
        if name.startswith(("export ", "export\t")):
            name = name[7:].strip()
        if not equals or not name or any(char.isspace() or char in "'\"#" for char in name):
            raise EnvFileError(path, f"line {number} is not NAME=value")
        while value_at < end and text[value_at] in " \t":
            value_at += 1
        if value_at < end and text[value_at] in "'\"":
            value, at = _quoted(text, value_at, path, number)
        else:
            value, at = _unquoted(text[raw_at:end]), end + 1
        if len(os.fsencode(name)) + len(os.fsencode(value)) + 1 > MAX_VALUE:
            raise EnvFileError(path, f"line {number}: value larger than {MAX_VALUE} bytes")
        values[name] = value
    return values


def _unquoted(text: str) -> str:
    for at, char in enumerate(text):
        if char == "#" and text[at - 1 : at] in (" ", "\t"):
            return text[:at].strip()
    return text.strip()


def _quoted(text: str, start: int, path: str, number: int) -> tuple[str, int]:
    """The value whose opening quote is at `start`, and where the next line begins."""
    quote = text[start]
    out = []
    at = start + 1
    while at < len(text) and text[at] != quote:
        if text[at] == "\\" and at + 1 < len(text):
            known = text[at + 1] in ("\\", "'") if quote == "'" else text[at + 1] in _ESCAPES
            out.append(_ESCAPES[text[at + 1]] if known else text[at : at + 2])
            at += 2
        else:
            out.append(text[at])
            at += 1
    if at >= len(text):
        raise EnvFileError(path, f"line {number}: quote is not closed")
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    rest = text[at + 1 : end].strip()
    if rest and not rest.startswith("#"):
        raise EnvFileError(path, f"line {number}: text after the closing quote")
    return "".join(out), end + 1


def _decode(path: str, content: bytes) -> str:
    if b"\0" in content:
        raise EnvFileError(path, "holds a NUL byte")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise EnvFileError(path, "not UTF-8") from None
