"""What a message says."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.master.notify.channel import MAX_EXTEND, MAX_STATUS, Channel, Message, Read, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.notify.conftest import Ear, Run, Say


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"READY=1", Message(ready=True)),
        (b"WATCHDOG=1", Message(beat=True)),
        (b"WATCHDOG=1\n", Message(beat=True)),
        (b"WATCHDOG=trigger", Message(hung=True)),
        (b"STOPPING=1", Message(stopping=True)),
        (b"RELOADING=1\nMONOTONIC_USEC=123456", Message(reloading=True)),
        (b"STATUS=42 of 100 done", Message(status="42 of 100 done")),
        (b"STATUS=a=b", Message(status="a=b")),
        (b"STATUS=", Message(status="")),
        (b"EXTEND_TIMEOUT_USEC=2500000", Message(extend=2.5)),
        (b"X_ENTRYPOINT_BUSY=1", Message(busy=True)),
        (b"X_ENTRYPOINT_BUSY=0", Message(busy=False)),
        (b"X_ENTRYPOINT_REQUESTS=0", Message(requests=0)),
        (b"X_ENTRYPOINT_REQUESTS=17", Message(requests=17)),
        (b"MAINPID=4711", Message(mainpid=True)),
        (
            b"READY=1\nSTATUS=up\nMAINPID=12\nEXTEND_TIMEOUT_USEC=1000000\nWATCHDOG=1\n",
            Message(ready=True, status="up", mainpid=True, extend=1.0, beat=True),
        ),
        (b"STATUS=one\nSTATUS=two", Message(status="two")),
        (b"nonsense\n\n=\n=1\nREADY=1\n\xff\xfe", Message(ready=True)),
    ],
)
def test_a_message_is_understood(hear: Callable[[bytes], Read], text: bytes, message: Message) -> None:
    assert hear(text) == Read([message], 0, False)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"=",
        b"READY",
        b"READY=0",
        b"READY=11",
        b" READY=1",
        b"READY=1 ",
        b"ready=1",
        b"WATCHDOG=2",
        b"WATCHDOG_USEC=1000000",
        b"FDSTORE=1\nFDNAME=x",
        b"ERRNO=2",
        b"BUSERROR=org.example",
        b"X_ENTRYPOINT_BUSY=yes",
        b"X_ENTRYPOINT_REQUESTS=-1",
        b"X_ENTRYPOINT_REQUESTS=1_000",
        b"X_ENTRYPOINT_REQUESTS=" + b"9" * 4000,
        b"EXTEND_TIMEOUT_USEC=soon",
        b"EXTEND_TIMEOUT_USEC=+5",
        b"EXTEND_TIMEOUT_USEC=1e6",
        b"EXTEND_TIMEOUT_USEC=",
        b"EXTEND_TIMEOUT_USEC=" + b"1" * 4000,
        "EXTEND_TIMEOUT_USEC=٣".encode(),
        b"\0\1\2\xff",
    ],
)
def test_what_is_no_known_message_says_nothing_and_is_no_offence(hear: Callable[[bytes], Read], text: bytes) -> None:
    assert hear(text) == Read([], 0, False)


def test_nobody_can_ask_for_more_than_a_day(hear: Callable[[bytes], Read]) -> None:
    assert hear(b"EXTEND_TIMEOUT_USEC=18446744073709551615").messages == [Message(extend=MAX_EXTEND)]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"tab\tbell\a escape\x1b[2J", "tab bell  escape [2J"),
        ("next\x85line csi\x9b31m".encode(), "next line csi 31m"),
        ("bidi\u202eoverride line\u2028separator".encode(), "bidi override line separator"),
        ("grüße 世界 🙂".encode(), "grüße 世界 🙂"),
        (b"half \xe4\xb8 a character", "half \ufffd a character"),
        (b"\xff", "\ufffd"),
    ],
)
def test_a_status_cannot_control_a_terminal(hear: Callable[[bytes], Read], text: bytes, status: str) -> None:
    assert hear(b"STATUS=" + text).messages == [Message(status=status)]


def test_a_status_is_cut_at_256_bytes_between_two_characters(hear: Callable[[bytes], Read]) -> None:
    assert hear(b"STATUS=" + b"x" * 300).messages == [Message(status="x" * 256)]
    assert hear(b"STATUS=x" + "ü".encode() * 200).messages == [Message(status="x" + "ü" * 127)]
    assert hear(b"STATUS=" + b"\xff" * 300).messages == [Message(status="\ufffd" * 85)]


def test_messages_keep_their_order_and_only_a_beat_after_a_beat_is_left_out(
    channel: Channel, say: Say, ear: Ear
) -> None:
    for text in (b"WATCHDOG=1", b"BARRIER=1", b"WATCHDOG=1", b"RELOADING=1", b"WATCHDOG=1", b"READY=1", b"STOPPING=1"):
        say(text)
    beat = Message(beat=True)
    assert channel.read(os.getpid(), os.getuid()) == Read(
        [beat, Message(reloading=True), beat, Message(ready=True), Message(stopping=True)], 0, False
    )


def test_equal_messages_that_are_no_beats_all_count(channel: Channel, say: Say) -> None:
    say(b"X_ENTRYPOINT_REQUESTS=1")
    say(b"X_ENTRYPOINT_REQUESTS=1")
    assert channel.read(os.getpid(), os.getuid()).messages == [Message(requests=1)] * 2


def test_nothing_to_read_is_nothing_and_makes_nobody_wait(channel: Channel) -> None:
    assert channel.read(os.getpid(), os.getuid()) == Read([], 0, False)


def test_a_batch_has_a_limit_and_says_when_it_was_met(channel: Channel, say: Say) -> None:
    for n in range(5):
        say(b"STATUS=%d" % n)
    me = os.getpid(), os.getuid()
    assert channel.read(*me, 2) == Read([Message(status="0"), Message(status="1")], 0, True)
    assert channel.read(*me, 3) == Read([Message(status=s) for s in "234"], 0, True)
    assert channel.read(*me, 3) == Read([], 0, False)


def test_the_limit_counts_what_is_refused_as_well(channel: Channel, say: Say, run: Run) -> None:
    worker = run("stay()")
    worker.line()
    for _ in range(5):
        say(b"READY=1")  # this process is a stranger to the worker
    assert channel.read(worker.pid, os.getuid(), 3) == Read([], 3, True)
    assert channel.read(worker.pid, os.getuid(), 3) == Read([], 2, False)


def test_a_flood_is_read_in_bounded_batches_and_in_order(ear: Ear, run: Run) -> None:
    worker = run("for n in range(1000): say(b'STATUS=%d' % n)\nstay()")
    ear.until(lambda ear: len(ear.messages) == 1000, pid=worker.pid, most=4)
    assert [m.status for m in ear.messages] == [str(n) for n in range(1000)]
    assert max(len(r.messages) for r in ear.reads) == 4
    assert all(r.more == (len(r.messages) == 4) for r in ear.reads)


def test_4096_bytes_are_read_and_one_more_is_refused(channel: Channel, hear: Callable[[bytes], Read]) -> None:
    assert hear(b"READY=1\nSTATUS=" + b"x" * (4096 - 15)) == Read([Message(ready=True, status="x" * 256)], 0, False)
    assert hear(b"READY=1\nSTATUS=" + b"x" * (4097 - 15)) == Read([], 1, False)
    assert hear(b"READY=1") == Read([Message(ready=True)], 0, False)


def test_lines_have_a_limit(hear: Callable[[bytes], Read]) -> None:
    assert hear(b"\n" * 63 + b"READY=1").messages == [Message(ready=True)]
    assert hear(b"\n" * 64 + b"READY=1").messages == []


KEYS = [
    *(b"READY=", b"WATCHDOG=", b"STATUS=", b"STOPPING=", b"RELOADING=", b"EXTEND_TIMEOUT_USEC=", b"MAINPID="),
    *(b"X_ENTRYPOINT_BUSY=", b"X_ENTRYPOINT_REQUESTS=", b"BARRIER=", b"FDSTORE=", b""),
]
VALUES = st.one_of(
    st.binary(max_size=600),
    st.text(max_size=300).map(lambda t: t.encode(errors="surrogatepass")),
    st.integers().map(lambda n: str(n).encode()),
    st.sampled_from([b"1", b"0", b"trigger"]),
)
LINES = st.lists(st.tuples(st.sampled_from(KEYS), VALUES).map(b"".join), max_size=8).map(b"\n".join)


@settings(max_examples=250, deadline=None)
@given(st.one_of(st.binary(max_size=5000), LINES))
def test_whatever_is_said_nothing_is_raised_and_nothing_dangerous_gets_through(text: bytes) -> None:
    channel = Channel(secrets.token_hex(8), 0)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text, "\0" + channel.address[1:])
        read = channel.read(os.getpid(), os.getuid())
    finally:
        channel.close()
    assert read.refused == (len(text) > 4096)
    message = parse(text)
    if len(text) <= 4096:
        assert read.messages == ([] if message is None else [message])
    if message is None:
        return
    assert 0 <= message.extend <= MAX_EXTEND
    assert message.requests is None or 0 <= message.requests < 10**20
    if message.status is not None:
        assert message.status.isprintable()
        assert len(message.status.encode()) <= MAX_STATUS
