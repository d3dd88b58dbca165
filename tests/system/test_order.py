"""Init commands, and pools that come after others."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.system.observed import OBSERVER, Observed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.conftest import Start


def test_init_commands_run_one_after_the_other_before_any_pool(start: Start) -> None:
    master = start(
        """
        init:
          - {name: one, command: [sh, -c, 'sleep 0.1; echo one $WHAT'], env: {WHAT: '1'}}
          - {name: two, command: [sh, -c, 'pwd; echo two'], cwd: /usr}
        pools: {web: {command: [sh, -c, 'echo web; exec sleep 1000']}}
        """
    )
    master.wait_for_line("^web$")
    assert master.said == ["one 1", "/usr", "two", "web"]
    assert master.stop()[0] == 0


def test_an_init_command_that_fails_ends_everything(start: Start, tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.touch()
    master = start(
        f"""
        init:
          - {{name: one, command: [sh, -c, exit 6]}}
          - {{name: two, command: [echo, two]}}
        pools: {{web: {{command: [echo, web]}}}}
        shutdown: {{termination_log: {message}}}
        """
    )
    assert master.wait() == 6
    assert master.said == []
    assert master.wait_for("giving_up")["reason"] == "init command init:one failed"
    assert json.loads(message.read_text())["exit_code"] == 6


def test_an_init_command_that_cannot_be_executed(start: Start) -> None:
    master = start("init: [{name: one, command: [nonsense]}]\npools: {web: {command: [echo, web]}}")
    assert master.wait() == 127
    assert "cannot execute nonsense: no such command" in master.story()


def test_an_init_command_that_takes_too_long(start: Start) -> None:
    master = start(
        """
        init: [{name: one, command: [sleep, '1000'], timeout: 200ms}]
        pools: {web: {command: [echo, web]}}
        """
    )
    assert master.wait() == 128 + signal.SIGTERM
    master.wait_for("init_timeout", pool="init:one")
    assert master.said == []


def test_pools_start_after_and_stop_before_those_that_they_need(start: Start) -> None:
    def worker(name: str) -> str:
        trap = f'trap "sleep 0.1; echo {name} down; exit 0" TERM'
        return f"[sh, -c, '{trap}; echo {name} up; while :; do sleep 0.02; done']"

    master = start(
        f"""
        pools:
          web: {{command: {worker("web")}, after: [app], ready: {{after: 0s}}}}
          app: {{command: {worker("app")}, after: [cache, db], ready: {{after: 100ms}}}}
          db: {{command: {worker("db")}, ready: {{after: 100ms}}}}
          cache: {{command: {worker("cache")}, ready: {{after: 50ms}}}}
        """
    )
    master.wait_for_line("web up")
    order = [line.split()[0] for line in master.said if line.endswith("up")]
    assert set(order[:2]) == {"db", "cache"}
    assert order[2:] == ["app", "web"]
    master.wait_for("pool_ready", pool="web")
    assert master.stop()[0] == 0
    order = [line.split()[0] for line in master.said if line.endswith("down")]
    assert order[:2] == ["web", "app"]
    assert set(order[2:]) == {"db", "cache"}


def test_a_completed_pool_counts_as_ready_for_those_after_it(start: Start) -> None:
    master = start(
        """
        pools:
          prepare: {command: [sh, -c, echo prepared], restart: {policy: on-failure}}
          web: {command: [sh, -c, 'echo web; exec sleep 1000'], after: [prepare]}
        """
    )
    master.wait_for_line("^web$")
    assert master.said == ["prepared", "web"]
    assert master.stop()[0] == 0


def test_a_pool_that_gives_up_ends_the_ones_that_wait_for_it(start: Start) -> None:
    master = start(
        """
        pools:
          cache: {command: [sh, -c, exit 4], restart: {give_up_after: 2}}
          web: {command: [echo, web], after: [cache]}
        """
    )
    assert master.wait() == 4
    assert master.said == []


@pytest.mark.parametrize("init", ["", "init: [{name: migrate, command: ['true']}]\n"], ids=["no init", "init"])
def test_the_order_of_the_first_spawns(start: Start, init: str) -> None:
    """Nothing delays the first worker, and no other goes before who answers whoever asks how things are."""
    master = start(
        init + OBSERVER + "pools: {web: {command: [sleep, '1000'], workers: 3, output: json, "
        "liveness: {tcp: '127.0.0.1:1$(ENTRYPOINT_SLOT)'}}}\nlog: {level: debug}\n"
    )
    started = [master.wait_for("worker_started") for _ in range(7 if init else 6)]
    order = [f"{event['pool']}/{event['slot']}" for event in started]
    first = ["init:migrate/0"] if init else ["web/0"]
    rest = ["web/0"] if init else []
    assert order == ["logger/0", *first, "observer/0", "monitor/0", *rest, "web/1", "web/2"]
    Observed(master).until("/livez", 200)
    assert master.stop()[0] == 0
