"""The container seen from outside: its health, and the commands that `docker exec` runs in it."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.docker.conftest import Box, Run

SECOND = 1_000_000_000
OFTEN = {"interval": SECOND, "timeout": 3 * SECOND, "retries": 1, "start_period": 0}
CONFIG = """
pools:
  web: {command: [sleep, '1000'], workers: 2, ready: {when: alive, after: 100ms}}
"""


def wait_for_health(box: Box, wanted: str, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while box.container.attrs["State"].get("Health", {}).get("Status") != wanted:
        assert time.monotonic() < deadline, box.container.attrs["State"].get("Health")
        time.sleep(0.1)
        box.container.reload()


def test_a_container_is_healthy_while_its_master_answers(run: Run) -> None:
    box = run(config=CONFIG, healthcheck=OFTEN)
    wait_for_health(box, "healthy")
    box.container.reload()
    pid = box.container.attrs["State"]["Pid"]
    os.kill(pid, signal.SIGSTOP)
    wait_for_health(box, "unhealthy")
    os.kill(pid, signal.SIGCONT)
    wait_for_health(box, "healthy")
    assert box.stop()[0] == 0


def test_a_container_in_init_mode_is_healthy(run: Run) -> None:
    box = run("--", "sleep", "1000", healthcheck=OFTEN)
    wait_for_health(box, "healthy")


@pytest.mark.parametrize("options", [{}, {"read_only": True}, {"read_only": True, "user": "23456:0"}], ids=repr)
def test_the_commands_find_their_master_without_a_writable_path(run: Run, options: dict[str, object]) -> None:
    box = run(config=CONFIG, **options)
    box.wait_for('"pool_ready"')
    code, output = box.container.exec_run(["entrypoint", "status", "--json"])
    assert code == 0, output
    assert isinstance(output, bytes)
    status = json.loads(output)
    assert status["pid"] == 1
    assert [w["id"] for w in status["pools"]["web"]["workers"]] == ["web/0", "web/1"]
    assert box.container.exec_run(["entrypoint", "scale", "web", "3"]) == (0, b"")
    box.wait_for('"pool_resized"')
    for what in ("live", "ready", "startup"):
        assert box.container.exec_run(["entrypoint", "probe", what]).exit_code == 0
    assert box.stop()[0] == 0


def test_the_commands_find_a_configured_socket(run: Run) -> None:
    box = run(config=f"{CONFIG}control: {{socket: /tmp/c.sock}}\n")
    box.wait_for('"pool_ready"')
    assert box.container.exec_run(["entrypoint", "probe", "ready"]).exit_code == 0


def test_root_finds_the_master_of_another_user(run: Run) -> None:
    box = run(config=CONFIG)
    box.wait_for('"pool_ready"')
    assert box.container.exec_run(["entrypoint", "probe", "ready"], user="0").exit_code == 0


def test_another_user_in_the_container_cannot_command_its_master(run: Run) -> None:
    box = run(config=CONFIG)
    box.wait_for('"pool_ready"')
    code, output = box.container.exec_run(["entrypoint", "status"], user="12345")
    assert code == 1
    assert b"cannot reach the master" in output
    box.container.kill("TERM")
    assert box.wait() == 0
