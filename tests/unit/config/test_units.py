"""Durations, sizes, signals, numbers."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.config import units
from entrypoint.linux import signals


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("1m30s", 90),
        ("2h", 7200),
        ("1h1m1s1ms", 3661.001),
        ("0", 0),
        ("0s", 0),
        ("1.5", 1.5),
        ("1.5s", 1.5),
        ("100ms", 0.1),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1d", "30s1m", "1 s", "1e3", "inf", "nan", "٣s", "1s ", "0x1", "9999h"]
)
def test_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a duration|longer"):
        units.parse_duration(text)


@given(st.integers(0, int(units.MAX_DURATION) * 1000))
def test_duration_round_trip(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert units.parse_duration(units.format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512Mi", 512 * 2**20),
        ("1G", 10**9),
        ("1.5Gi", 3 * 2**29),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1e3", 1000),
        ("1500m", 2),
        ("0.1", 1),
    ],
)
def test_size(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1K", "1KB", "Mi", "1 Mi", "1e", "10E", "16Ei", "1e99", "0x10", "1_000"])
def test_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|larger"):
        units.parse_size(text)


@given(st.integers(0, units.MAX_SIZE))
def test_size_round_trip(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == size


@pytest.mark.parametrize("text", ["TERM", "SIGTERM", "15", "term", "sigterm"])
def test_signal(text: str) -> None:
    assert units.signal_number(text) == signal.SIGTERM


@pytest.mark.parametrize(
    ("text", "above"), [("RTMIN", 0), ("SIGRTMIN+3", 3), ("rtmin+3", 3), ("RTMAX-1", 29), ("sigrtmax", 30), ("37", 3)]
)
def test_a_real_time_signal_as_docker_and_systemd_write_it(text: str, above: int) -> None:
    assert units.signal_number(text) == signal.SIGRTMIN + above


@pytest.mark.parametrize(
    "text",
    ["", "0", "65", "-1", "SIGSIGTERM", "TERMINATE", "32", "1.0", "²", "SIG15", "RTMIN-1", "RTMIN+31", "RTMAX-31",
     "RTMAX+1", "RTMIN+", "RTMIN+-1", "TERM+1"],
)  # fmt: skip
def test_not_a_signal(text: str) -> None:
    with pytest.raises(ValueError, match="not a signal"):
        units.signal_number(text)


@pytest.mark.parametrize("number", [*range(1, 32), *range(34, 65)])
def test_signal_round_trip(number: int) -> None:
    assert units.signal_number(signals.signal_name(number)) == number
    assert signals.signal_name(signal.SIGRTMIN + 3) == "RTMIN+3"


@pytest.mark.parametrize("text", ["010", "0x10", "1_0", "+1", "1.0", "", "-", "--1", "²"])
def test_not_an_integer(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        units.parse_int(text)


@pytest.mark.parametrize(("text", "mode"), [("022", 0o22), ("22", 0o22), ("0o660", 0o660), ("0777", 0o777)])
def test_octal(text: str, mode: int) -> None:
    assert units.parse_octal(text) == mode


@pytest.mark.parametrize("text", ["", "8", "0x1", "7777", "-1", "0o", "00022"])
def test_not_octal(text: str) -> None:
    with pytest.raises(ValueError, match="octal"):
        units.parse_octal(text)


@pytest.mark.parametrize("name", ["a", "0", "web", "web-1", "a" * 63])
def test_name(name: str) -> None:
    assert units.parse_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "Web", "a_b", "a.b", "a" * 64, "a\n", "é"])
def test_not_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        units.parse_name(name)
