"""Standard output as an engine gives it, and pools with users of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.docker.conftest import Run

CONFIG = """
init: [{name: one, command: [sh, -c, "echo init out >/dev/stdout && echo init err >/dev/stderr"], user: nobody}]
pools:
  a: {command: [sh, -c, "echo a out >/dev/stdout && echo a err >/dev/stderr && exec sleep 600"], user: nobody}
  b: {command: [sh, -c, "echo b out >/dev/stdout && echo b err >/dev/stderr && exec sleep 600"], user: daemon}
"""


@pytest.mark.parametrize("tty", [False, True])
def test_programs_of_other_users_open_their_output_without_capabilities(run: Run, *, tty: bool) -> None:
    box = run(config=CONFIG, user="0", tty=tty, cap_drop=["ALL"], cap_add=["SETUID", "SETGID", "KILL"])
    box.wait_for_all(*(f"{who} {stream}\r?\n" for who in ("init", "a", "b") for stream in ("out", "err")))
    assert box.stop()[0] == 0
    assert "denied" not in box.output
