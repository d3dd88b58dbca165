"""Init commands, and pools that come after others."""

from __future__ import annotations

import json
import os
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


HOW = pytest.mark.parametrize(
    ("command", "code", "ended"),
    [("'exit 3'", 3, "exit code 3"), ("kill -KILL $$", 137, "signal 9"), ("exec /no/such", 127, "exit code 127")],
)


@HOW
def test_what_comes_after_a_pool_that_failed_does_not_start_and_the_master_ends(
    start: Start, command: str, code: int, ended: str
) -> None:
    master = start(
        f"""
        pools:
          migrate: {{command: [sh, -c, {command}], restart: {{policy: never}}}}
          web: {{command: [sh, -c, 'echo web; exec sleep 1000'], after: [migrate]}}
          other: {{command: [sleep, '1000']}}
        """
    )
    assert master.wait() == code
    assert "web" not in master.said
    assert master.wait_for("pool_failed", pool="migrate", level="error")["error"] == f"migrate/0 ended by {ended}"
    assert master.wait_for("master_exiting")["reason"] == f"pool migrate failed: migrate/0 ended by {ended}"
    assert not master.all("pool_ready", pool="migrate")


def test_a_failed_pool_is_not_ready_while_another_job_is_let_finish(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    master = start(
        f"""
        {OBSERVER}
        pools:
          migrate: {{command: [sh, -c, 'exit 3'], restart: {{policy: never}}}}
          import: {{command: [sh, -c, 'read line < {tmp_path}/gate'], restart: {{policy: never}}, ready: {{after: 0s}}}}
          web: {{command: [sh, -c, 'echo web; exec sleep 1000'], after: [migrate]}}
        """
    )
    observed = Observed(master)
    master.wait_for("pool_failed")
    failed = "migrate: failed: migrate/0 ended by exit code 3"
    master.wait_for("pool_ready", pool="import")
    assert observed.get("/readyz") == (503, f"{failed}; web: waits for migrate\n")
    assert "[-] migrate: failed\n" in observed.get("/readyz?verbose").text
    assert observed.get("/startupz") == (503, f"{failed}\n")
    assert observed.value("pool_failed", pool="migrate") == 1
    assert json.loads(observed.get("/status").text)["pools"]["migrate"]["state"] == "failed"
    (tmp_path / "gate").write_text("go\n")
    assert master.wait() == 3
    assert "web" not in master.said


def test_a_failure_of_what_is_not_critical_holds_up_nothing(start: Start) -> None:
    master = start(
        """
        pools:
          seed: {command: [sh, -c, 'exit 3'], restart: {policy: never}, critical: false}
          web: {command: [sh, -c, 'echo web; exec sleep 1000'], after: [seed]}
        """
    )
    master.wait_for_line("^web$")
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
