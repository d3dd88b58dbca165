"""Framing: what comes of the bytes of a worker."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from entrypoint.logger.lines import MAX_LINE, Clock, Framer

NOW = "2026-01-02T03:04:05.678901Z"
WHO = {"stream": "stdout", "pool": "web", "slot": 3, "pid": 42}


def framed(data: bytes, *, final: bool = False) -> tuple[list[dict[str, Any]], int]:
    """The lines, and how many bytes they are made of."""
    result = Framer("stdout", "web", 3, 42).frame(data, NOW, final=final)
    assert not result.text or result.text.endswith(b"\n")
    return [json.loads(line) for line in result.text.splitlines()], result.consumed


def only(data: bytes) -> dict[str, Any]:
    [line], consumed = framed(data + b"\n")
    assert consumed == len(data) + 1
    return line


def test_text_becomes_a_message_of_its_worker() -> None:
    assert only(b"hello") == {"timestamp": NOW, **WHO, "message": "hello"}


def test_only_whole_lines_are_taken() -> None:
    lines, consumed = framed(b"one\ntwo\nthr")
    assert [line["message"] for line in lines] == ["one", "two"]
    assert consumed == 8


def test_the_last_line_of_all_needs_no_end() -> None:
    lines, consumed = framed(b"one\ntwo", final=True)
    assert [line["message"] for line in lines] == ["one", "two"]
    assert consumed == 7


@pytest.mark.parametrize("final", [False, True])
def test_nothing_comes_of_nothing(*, final: bool) -> None:
    assert framed(b"", final=final) == ([], 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", ""),
        (b"a\r", "a"),
        (b"a\rb", "a\rb"),
        (b'say "hi" \\ \x00\x1b[0m\t', 'say "hi" \\ \0\x1b[0m\t'),
        ("grüße 🚀\u2028\x85".encode(), "grüße 🚀\u2028\x85"),
        (b"\xff\xc3(\xf0\x9f\x9a", "\ufffd\ufffd(\ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
    ],
)
def test_any_bytes_are_a_message(data: bytes, message: str) -> None:
    assert only(data)["message"] == message


def test_a_json_object_is_merged() -> None:
    own = {"level": "info", "message": "hi", "n": [1, {"a": None}], "ü": "\n"}
    assert only(json.dumps(own).encode()) == {"timestamp": NOW, **WHO, **own}


def test_white_space_around_a_json_object_does_not_matter() -> None:
    assert only(b'{ "a" : 1 } \r') == {"timestamp": NOW, **WHO, "a": 1}


def test_an_empty_object_is_an_object() -> None:
    assert only(b"{ }") == {"timestamp": NOW, **WHO}


def test_its_own_timestamp_is_kept() -> None:
    line = b'{"timestamp": "yesterday"}'
    assert only(line) == {**WHO, "timestamp": "yesterday"}
    result = Framer("stdout", "web", 3, 42).frame(line + b"\n", NOW, final=False)
    assert result.text.count(b"timestamp") == 1


def test_it_cannot_say_that_it_is_another() -> None:
    own = {"pool": "x", "slot": 9, "pid": 1, "stream": "y", "b": "ü"}
    renamed = {"pool_": "x", "slot_": 9, "pid_": 1, "stream_": "y", "b": "ü"}
    assert only(json.dumps(own).encode()) == {"timestamp": NOW, **WHO, **renamed}


def test_a_renamed_key_takes_no_other_key_s_place() -> None:
    assert only(b'{"pool_": 1, "pool": 2, "pool__": 3}') == {
        "timestamp": NOW, **WHO, "pool_": 1, "pool___": 2, "pool__": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        '{"a": 1',
        '{"a": 1}}',
        '{"a": 1} trailing',
        '{"a": 1},{"b": 2}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        "{'a': 1}",
        "{",
        '{"a": ' + "9" * 5000 + "}",
        '{"a": ' + "[" * 20000,
        '{"a": "\t"}',
        "[1, 2]",
        '"text"',
        "null",
        "12",
    ],
)
def test_what_is_no_json_object_is_text(line: str) -> None:
    assert only(line.encode())["message"] == line


def test_an_escaped_half_of_a_surrogate_pair_does_not_end_it() -> None:
    assert only(b'{"a": "\\ud800"}')["a"] == "\ud800"
    assert only(b'{"pool": "\\ud800"}')["pool_"] == "\ud800"


def test_a_line_of_64_kib_is_whole() -> None:
    line = only(b"x" * MAX_LINE)
    assert line["message"] == "x" * MAX_LINE
    assert "truncated" not in line


def test_a_longer_line_is_cut_and_marked_and_goes_on_in_the_next_one() -> None:
    [first], consumed = framed(b"x" * MAX_LINE + b"y")
    assert first == {"timestamp": NOW, **WHO, "message": "x" * MAX_LINE, "truncated": True}
    assert consumed == MAX_LINE
    assert framed(b"y\n")[0][0]["message"] == "y"


@pytest.mark.parametrize("before", range(4))
def test_a_line_is_not_cut_within_a_character(before: int) -> None:
    text = "x" * before + "🚀" * (MAX_LINE // 4 + 1)
    [line], consumed = framed(text.encode()[: MAX_LINE + 1])
    assert text.startswith(line["message"])
    assert MAX_LINE - 4 < consumed <= MAX_LINE


def test_bytes_that_are_no_text_are_cut_as_well() -> None:
    assert framed(b"\x80" * (MAX_LINE + 1))[1] >= MAX_LINE - 3


def test_whole_lines_before_a_long_one_are_taken_first() -> None:
    lines, consumed = framed(b"a\nb\n" + b"x" * MAX_LINE)
    assert ([line["message"] for line in lines], consumed) == (["a", "b"], 4)


def test_a_timestamp_has_microseconds_and_never_goes_back() -> None:
    clock = Clock()
    stamps = [clock.now() for _ in range(1000)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", stamp) for stamp in stamps)
    assert stamps == sorted(stamps)
