"""Dotenv files and secrets."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import dotenv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.config.envfiles import MAX_VALUE, EnvFileError, parse_env, read_env_file, read_secret

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.config.conftest import Load


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("# c\n\n  \nA=1\nB = 2 \n", {"A": "1", "B": "2"}),
        ("export A=1\nexport\tB=2", {"A": "1", "B": "2"}),
        ("A=1 # c\nB=1#c\nC=#c\nD=\nE= # c", {"A": "1", "B": "1#c", "C": "#c", "D": "", "E": ""}),
        ("A='x # y'\nB=\"x # y\" # c", {"A": "x # y", "B": "x # y"}),
        ("A='a\nb'\nB=\"c\nd\"\nC=1", {"A": "a\nb", "B": "c\nd", "C": "1"}),
        (r'A="a\nb\t\"\\\$"', {"A": 'a\nb\t"\\$'}),
        (r"A='a\nb'", {"A": r"a\nb"}),
        ("A=x=y\nA=2", {"A": "2"}),
        ("A=${B}\nC=$(D)", {"A": "${B}", "C": "$(D)"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1", {"A": "1"}),
    ],
)
def test_env_file(tmp_path: Path, text: str, values: dict[str, str]) -> None:
    path = tmp_path / ".env"
    path.write_bytes(text.encode())
    assert read_env_file(str(path)) == values


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A=1\nB\n", "line 2 is not NAME=value"),
        ("=1", "line 1 is not NAME=value"),
        ("A B=1", "line 1 is not NAME=value"),
        ("A=1\nB='x", "line 2: quote is not closed"),
        ('A="x\ny', "line 1: quote is not closed"),
        ("A='x' y", "line 1: text after the closing quote"),
        ("A=" + "x" * MAX_VALUE, f"line 1: value larger than {MAX_VALUE} bytes"),
        ("A=\0", "holds a NUL byte"),
        (b"A=\xff", "not UTF-8"),
        ("A=1\n" * 300_000, "larger than 1048576 bytes"),
    ],
)
def test_a_wrong_env_file(tmp_path: Path, text: str | bytes, reason: str) -> None:
    path = tmp_path / ".env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(EnvFileError) as raised:
        read_env_file(str(path))
    assert (str(raised.value), raised.value.reason) == (f"cannot read {path}: {reason}", reason)


@given(
    st.lists(
        st.tuples(st.from_regex("[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), st.text("ab =#'\"\\n$.-", max_size=8)),
        max_size=4,
    )
)
def test_agrees_with_python_dotenv(pairs: list[tuple[str, str]]) -> None:
    # Ours alone: \\$ is an escape, and nothing but a comment is an empty value. Theirs alone: \\a and \\b, which in a
    # password or a path are what they look like.
    text = "".join(
        f"{name}={value}\n"
        for name, value in pairs
        if not any(escape in value for escape in ("\\$", "\\a", "\\b")) and not value.lstrip(" ").startswith("#")
    )
    try:
        ours = parse_env("x", text)
    except EnvFileError:
        return  # stricter: python-dotenv skips what it cannot read
    theirs = dotenv.dotenv_values(stream=io.StringIO(text), interpolate=False)
    assert ours == theirs


@given(
    st.dictionaries(st.from_regex("[A-Z]{1,5}", fullmatch=True), st.text(max_size=10).filter(lambda t: "\0" not in t))
)
def test_quoted_values_round_trip(values: dict[str, str]) -> None:
    def quote(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r") + '"'

    assert parse_env("x", "".join(f"{name}={quote(value)}\n" for name, value in values.items())) == values


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"x", "x"), (b"x\n", "x"), (b"x\n\n", "x\n"), (b" x \n", " x "), (b"", ""), (b"\n", ""), (b"x\r\n", "x")],
)
def test_secret(tmp_path: Path, content: bytes, value: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert read_secret(str(path)) == value


@pytest.mark.parametrize("content", [b"\0", b"\xff", b"x" * (MAX_VALUE + 2)])
def test_a_wrong_secret(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(EnvFileError, match=r"NUL|UTF-8|larger"):
        read_secret(str(path))


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(EnvFileError, match="not a regular file"):
        read_secret(str(tmp_path / "fifo"))


def test_in_a_configuration(config: Load, tmp_path: Path) -> None:
    (tmp_path / "app.env").write_text("A=1\n")
    (tmp_path / "db").write_text("s3cr3t\n")
    loaded = config(
        f"pools: {{web: {{command: [a], env: {{DB: {{file: {tmp_path}/db}}}}, env_from: ['${{DIR}}/app.env']}}}}",
        {"DIR": str(tmp_path)},
    )
    process = loaded.spec.pools[0].process
    assert process.env_files == (("DB", f"{tmp_path}/db"),)
    assert process.env_from == (f"{tmp_path}/app.env",)
    assert "s3cr3t" not in str(loaded)
