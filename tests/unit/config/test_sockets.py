"""Addresses of sockets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from entrypoint.config.addresses import Address, parse_bind

if TYPE_CHECKING:
    from tests.unit.config.conftest import Errors, Load


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:8000", Address("tcp", "0.0.0.0", 8000)),
        (":8000", Address("tcp", "", 8000)),
        ("[::]:80", Address("tcp", "::", 80)),
        ("[::0001]:80", Address("tcp", "::1", 80)),
        ("localhost:1", Address("tcp", "127.0.0.1", 1)),
        ("127.0.0.1:0", Address("tcp", "127.0.0.1", 0)),
        ("unix:/run/a.sock", Address("unix", path="/run/a.sock")),
        ("fd:3", Address("fd", fd=3)),
    ],
)
def test_bind(text: str, address: Address) -> None:
    assert parse_bind(text) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not HOST:PORT"),
        ("8000", "not HOST:PORT"),
        ("host", "not HOST:PORT"),
        ("127.0.0.1:", "port"),
        ("127.0.0.1:65536", "port"),
        ("127.0.0.1:-1", "port"),
        ("127.0.0.1:http", "port"),
        ("127.0.0.1:٣", "port"),
        ("example.com:80", "not an IP address or localhost"),
        ("*:80", "not an IP address or localhost"),
        ("127.1:80", "not an IP address or localhost"),
        ("127.0.0.256:80", "not an IP address or localhost"),
        ("127.0.0.01:80", "not an IP address or localhost"),
        ("::1:80", "brackets"),
        ("[::1%lo]:80", "brackets"),
        ("[1.2.3.4]:80", "brackets"),
        ("[\0]:80", "brackets"),
        ("unix:a.sock", "must be absolute"),
        ("unix:@name", "abstract"),
        ("unix:/" + "x" * 107, "longer than 107"),
        ("fd:x", "3 to 1023"),
        ("fd:0", "3 to 1023"),
        ("fd:-1", "3 to 1023"),
        ("fd:99999999999999999999", "3 to 1023"),
    ],
)
def test_a_wrong_bind(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_bind(text)


def one(config: str) -> str:
    return f"pools: {{web: {{command: [a], sockets: [s]}}}}\nsockets:\n  s: {config}\n"


def test_a_unix_socket(config: Load) -> None:
    (socket,) = config(one("{bind: 'unix:/run/s', mode: 0660, owner: '0:0'}")).spec.sockets
    assert (socket.kind, socket.path, socket.mode, socket.uid, socket.gid) == ("unix", "/run/s", 0o660, 0, 0)
    (socket,) = config(one("{bind: 'unix:/run/s', owner: '12345'}")).spec.sockets
    assert (socket.mode, socket.uid, socket.gid) == (None, 12345, -1)
    assert os.path.isabs(socket.path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{bind: ':80', mode: 0660}", "mode: only a unix socket has it"),
        ("{bind: 'fd:3', owner: root}", "owner: only a unix socket has it"),
        ("{bind: 'unix:/s', reuse_port: true}", "reuse_port: only a TCP socket with a port of its own can have it"),
        ("{bind: ':0', reuse_port: true}", "reuse_port: only a TCP socket with a port of its own can have it"),
        ("{bind: 'unix:/s', owner: nobody-here}", "owner: no such user: 'nobody-here'"),
        ("{bind: 'unix:/s', owner: 'root:nobody-here'}", "owner: no such group: 'root:nobody-here'"),
        ("{bind: ':80', backlog: 0}", "backlog: out of range 1 to 1048576: '0'"),
        ("{backlog: 1}", "bind is missing"),
    ],
)
def test_a_wrong_socket(errors: Errors, text: str, message: str) -> None:
    place = "config.yaml:3: sockets.s" + (": " if message.startswith("bind is") else ".")
    assert errors(one(text)) == [place + message]


@pytest.mark.parametrize(
    ("first", "second", "clashes"),
    [
        (":80", "0.0.0.0:80", True),
        (":80", "[::1]:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "localhost:80", True),
        ("[::]:80", "[::1]:80", True),
        ("unix:/a", "unix:/a", True),
        ("fd:3", "fd:3", True),
        (":80", ":81", False),
        ("0.0.0.0:80", "[::]:80", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        (":0", ":0", False),
        ("unix:/a", "unix:/b", False),
    ],
)
def test_two_sockets(config: Load, errors: Errors, first: str, second: str, *, clashes: bool) -> None:
    pools = "pools: {web: {command: [a], sockets: [a, b]}}"
    text = f"{pools}\nsockets:\n  a: {{bind: '{first}'}}\n  b: {{bind: '{second}'}}\n"
    if clashes:
        assert errors(text) == [f"config.yaml:4: sockets.b.bind: clashes with socket a ({first}): {second!r}"]
    else:
        assert len(config(text).spec.sockets) == 2


def test_a_socket_that_nobody_uses(config: Load) -> None:
    assert config("pools: {a: {command: [a]}}\nsockets: {s: {bind: ':80'}}").warnings == (
        "socket s is used by no pool",
    )


def test_a_socket_listed_twice(errors: Errors) -> None:
    text = "pools: {a: {command: [a], sockets: [s, s]}}\nsockets: {s: {bind: ':80'}}"
    assert errors(text) == ["config.yaml:1: pools.a.sockets[1]: listed twice: 's'"]
