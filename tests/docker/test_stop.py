"""`docker stop`: graceful, prompt, and at any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.docker.conftest import Run

WORKER = """
trap 'echo "$ENTRYPOINT_WORKER got TERM"; exit 0' TERM
echo "$ENTRYPOINT_WORKER up"
while :; do sleep 0.1; done
"""
CONFIG = f"""
pools:
  web:
    workers: 3
    command:
      - sh
      - -c
      - |{WORKER.replace(chr(10), chr(10) + " " * 8)}
"""


def test_every_worker_gets_term_and_the_container_is_gone_at_once(run: Run) -> None:
    box = run(config=CONFIG)
    box.wait_for_all(*(f"web/{slot} up" for slot in range(3)))
    code, seconds = box.stop()
    assert code == 0, box.output
    assert seconds < 3
    for slot in range(3):
        assert box.output.count(f"web/{slot} got TERM") == 1


def test_processes_that_escaped_from_their_worker_are_swept(run: Run) -> None:
    escapee = "trap : TERM; echo escaped; while :; do sleep 1; done"
    box = run(config=f"""pools: {{web: {{command: [sh, -c, "setsid sh -c '{escapee}' & exec sleep 1000"]}}}}""")
    box.wait_for("escaped\n")
    code, seconds = box.stop()
    assert code == 0, box.output
    assert seconds < 5


@pytest.mark.parametrize("attempt", range(5))
def test_a_stop_right_after_the_start_is_obeyed(run: Run, attempt: int) -> None:
    box = run(config=CONFIG)
    box.wait_until_term_is_kept()
    code, seconds = box.stop()
    assert code == 0, box.output
    assert seconds < 4
    assert "Traceback" not in box.output


def test_a_stop_during_an_init_command(run: Run) -> None:
    box = run(config=CONFIG + "\ninit: [{name: slow, command: [sh, -c, 'echo begun; exec sleep 1000']}]\n")
    box.wait_for("begun\n")
    code, seconds = box.stop()
    assert code == 0, box.output
    assert seconds < 4
    assert "web/0 up" not in box.output
