"""The `bind` of a socket: HOST:PORT, :PORT, [IPV6]:PORT, unix:/PATH, fd:N. And what a probe asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.record import Record

if TYPE_CHECKING:
    from entrypoint.config.spec import Socket

_FORMS = "not HOST:PORT, :PORT, [IPV6]:PORT, unix:/PATH or fd:N"
SUN_PATH = 107  # bytes of a unix address, without its NUL

# `re` is imported where it is used: few configurations have probes, and it takes 5 ms.
_REFERENCE = r"\$\([^()\s]+\)"  # $(NAME), resolved per worker
_AUTHORITY = rf"(\[[0-9A-Fa-f:.%]+\]|(?:[A-Za-z0-9._-]|{_REFERENCE})+)(?::((?:[0-9]|{_REFERENCE})+))?"
_URL = r"https?://([^/?#]*)([/?][!\"$-~]*)?"


class Address(Record):
    """A bind address in parts; those that do not apply are empty."""

    kind: str  # tcp | unix | fd
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1


def parse_bind(text: str) -> Address:
    """Raises ValueError with a reason that does not repeat the text."""
    if text.startswith("unix:"):
        return _parse_unix(text[5:])
    if text.startswith("fd:"):
        return _parse_fd(text[3:])
    host, colon, digits = text.rpartition(":")
    if not colon:
        raise ValueError(_FORMS)
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 5 or int(digits) > 65535:
        raise ValueError("the port is not a number from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return Address("tcp", _ipv6(host[1:-1]), int(digits))
    if ":" in host:
        raise ValueError("an IPv6 address is written in brackets: [::1]:8000")
    if host == "localhost":
        host = "127.0.0.1"
    elif host and not _is_ipv4(host):
        raise ValueError("the host is not an IP address or localhost")
    return Address("tcp", host, int(digits))


def _parse_unix(path: str) -> Address:
    if path.startswith("@"):
        raise ValueError("abstract addresses are not supported: any process in the network namespace could take them")
    if not path.startswith("/"):
        raise ValueError("the path of a unix socket must be absolute")
    if len(path.encode(errors="surrogateescape")) > SUN_PATH:
        raise ValueError(f"the path of a unix socket is longer than {SUN_PATH} bytes")
    return Address("unix", path=path)


def _parse_fd(digits: str) -> Address:
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 4 or not 3 <= int(digits) < 1024:
        raise ValueError("the number of an inherited socket is 3 to 1023")
    return Address("fd", fd=int(digits))


def check_url(text: str) -> str:
    """The URL of an HTTP probe as it is; raises ValueError with a reason that does not repeat the text."""
    import re

    match = re.fullmatch(_URL, text)
    if match is None:
        raise ValueError("not a URL such as http://127.0.0.1:8000/healthz")
    _check_authority(match[1])
    return text


def check_host_port(text: str) -> str:
    """The address of a TCP probe as it is; raises ValueError with a reason that does not repeat the text."""
    if not _check_authority(text):
        raise ValueError("not HOST:PORT")
    return text


def _check_authority(text: str) -> str | None:
    """The port, which may hold $(NAME); None without one."""
    import re

    match = re.fullmatch(_AUTHORITY, text)
    if match is None:
        raise ValueError("not HOST:PORT")
    port: str | None = match[2]
    if port and "$" not in port and not 1 <= int(port[:6]) <= 65535:
        raise ValueError("the port is not a number from 1 to 65535")
    return port


def clash(one: Socket, other: Socket) -> bool:
    """Whether both cannot be bound at once."""
    if one.kind != other.kind:
        return False
    if one.kind == "unix":
        return one.path == other.path
    if one.kind == "fd":
        return one.fd == other.fd
    if one.port != other.port or one.port == 0:
        return False
    if one.host == other.host or "" in (one.host, other.host):
        return True
    return (":" in one.host) == (":" in other.host) and (
        "0.0.0.0" in (one.host, other.host) or "::" in (one.host, other.host)
    )


def _is_ipv4(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and all(
        part.isascii() and part.isdecimal() and len(part) <= 3 and int(part) < 256 and str(int(part)) == part
        for part in parts
    )


def _ipv6(host: str) -> str:
    import socket  # a slow import that only IPv6 addresses need

    try:
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host))
    except (OSError, ValueError):
        raise ValueError("not an IPv6 address in the brackets") from None
