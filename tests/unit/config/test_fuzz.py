"""Whatever a file holds: it is loaded, or refused in the form of all refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entrypoint.config.load import ConfigError, Loaded, Request, load
from tests.unit.config.test_load import MINIMAL

if TYPE_CHECKING:
    from pathlib import Path

LEAVES = st.one_of(
    st.text(max_size=8), st.integers(), st.floats(), st.booleans(), st.none(), st.just("${A}"), st.just("auto")
)
KEYS = st.sampled_from(
    [
        "pools",
        "web",
        "command",
        "workers",
        "env",
        "sockets",
        "stop",
        "timeout",
        "bind",
        "init",
        "after",
        "user",
        "rlimits",
        "ready",
        "liveness",
        "rollout",
        "max_surge",
        "exec",
        "http",
        "tcp",
        "signals",
    ]
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=5),
    max_leaves=25,
)
LAX = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)  # the directory may be shared by all examples


def well_formed(line: str) -> bool:
    return line.startswith("cannot load ") and "\n" not in line


def outcome(path: Path, content: bytes, **request: object) -> Loaded | tuple[str, ...]:
    path.write_bytes(content)
    try:
        return load(Request(str(path), **request), {"A": "x"})  # type: ignore[arg-type]  # keywords are the test's
    except ConfigError as error:
        assert set(map(well_formed, error.errors)) == {True}  # noqa: PT017  # either outcome is right
        return error.errors


@LAX
@given(TREES)
def test_any_tree_is_loaded_or_refused(tmp_path: Path, tree: object) -> None:
    for document in (tree, {"pools": {"web": tree}}, {"pools": {"web": {"command": ["a"]}}, "sockets": {"s": tree}}):
        outcome(tmp_path / "c.yaml", yaml.safe_dump(document).encode())


@LAX
@given(st.text(st.sampled_from("pols:web{}[]cmand,&*!<|>-\"'#$\n \t%@`?~0"), max_size=60) | st.text(max_size=40))
def test_any_text_is_loaded_or_refused(tmp_path: Path, text: str) -> None:
    outcome(tmp_path / "c.yaml", text.encode(errors="replace"))
    outcome(tmp_path / "c.yaml", MINIMAL.encode(), sets=(text, f"pools.web.stop={text}", f"pools.web.env={text}"))


@LAX
@given(st.binary(max_size=60))
def test_any_bytes_are_loaded_or_refused(tmp_path: Path, content: bytes) -> None:
    outcome(tmp_path / "c.yaml", content)
    outcome(tmp_path / "c.yaml", MINIMAL.encode() + content)
