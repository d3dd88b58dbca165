"""Workers that die: replaced at once, after a pause, or not at all."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Start


def test_a_killed_worker_is_replaced_at_once_in_its_slot(start: Start) -> None:
    master = start("pools: {web: {command: [sleep, '1000'], workers: 3, restart: {min_uptime: 0s}}}")
    pids = {slot: master.wait_for("worker_started", pool="web", slot=slot)["pid"] for slot in range(3)}
    os.kill(pids[1], signal.SIGKILL)
    exit_line = master.wait_for("worker_exited", pool="web", slot=1)
    assert exit_line["pid"] == pids[1]
    assert exit_line["reason"] == "signal"
    assert exit_line["signal"] == "KILL"
    assert master.wait_for("worker_started", pool="web", slot=1)["pid"] != pids[1]
    assert len(master.all("worker_started")) == 4
    assert master.stop()[0] == 0


def test_a_worker_that_keeps_dying_backs_off_and_then_the_pool_gives_up(start: Start, tmp_path: Path) -> None:
    message = tmp_path / "termination"
    message.touch()
    master = start(
        f"""
        pools:
          web:
            command: [sh, -c, exit 7]
            restart: {{give_up_after: 4, backoff: {{initial: 50ms, jitter: 0}}}}
        shutdown: {{termination_log: {message}}}
        """
    )
    assert master.wait() == 7
    assert len(master.all("worker_started")) == 4
    assert [e["retry_in"] for e in master.all("pool_backoff")] == [0.05, 0.1]
    given_up = master.wait_for("giving_up", pool="web", level="error")
    assert given_up["reason"] == "pool web gave up: 4 failed boots in a row"
    assert given_up["exit_code"] == 7
    told = json.loads(message.read_text())
    assert (told["reason"], told["pool"], told["slot"], told["code"], told["exit_code"]) == (
        "pool web gave up: 4 failed boots in a row",
        "web",
        0,
        7,
        7,
    )


def test_a_pool_that_gives_up_on_workers_that_end_with_0_exits_with_1(start: Start) -> None:
    master = start("pools: {web: {command: ['true'], restart: {give_up_after: 2}}}")
    assert master.wait() == 1


def test_a_pool_gives_up_with_128_and_the_signal(start: Start) -> None:
    master = start("pools: {web: {command: [sh, -c, kill -SEGV $$], restart: {give_up_after: 2}}}")
    assert master.wait() == 128 + signal.SIGSEGV


def test_a_pool_that_is_not_critical_is_tried_for_ever(start: Start) -> None:
    master = start(
        """
        pools:
          web: {command: [sleep, '1000']}
          extra:
            command: ['false']
            critical: false
            restart: {give_up_after: 2, backoff: {initial: 20ms, max: 20ms}}
        """
    )
    for _ in range(6):
        master.wait_for("worker_exited", pool="extra")
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 2


def test_a_critical_pool_with_a_ready_worker_does_not_give_up(start: Start) -> None:
    master = start(
        """
        pools:
          web:
            command: [sh, -c, 'test "$ENTRYPOINT_SLOT" = 0 && exec sleep 1000; exit 3']
            workers: 2
            ready: {after: 0s}
            restart: {give_up_after: 2, backoff: {initial: 20ms, max: 20ms}}
        """
    )
    for _ in range(6):
        master.wait_for("worker_exited", slot=1, code=3)
    assert not master.all("giving_up")
    assert master.stop()[0] == 0


def test_a_worker_that_reaches_min_uptime_ends_the_row_of_failures(start: Start) -> None:
    master = start(
        """
        pools:
          web: {command: [sleep, '0.15'], restart: {min_uptime: 100ms, give_up_after: 2}}
        """
    )
    for _ in range(4):
        master.wait_for("worker_exited", reason="completed")
    assert not master.all("pool_backoff")
    assert master.stop()[0] == 0


@pytest.mark.parametrize("pid1", [False, True])
@pytest.mark.parametrize(
    ("command", "code", "why"),
    [
        ("no-such-program", 127, "cannot execute no-such-program: no such command"),
        ("/no/such/file", 127, "cannot execute /no/such/file: no such file"),
        ("/etc", 126, "cannot execute /etc: Permission denied"),
        ("{plain}", 126, "cannot execute {plain}: Permission denied"),
        ("{garbage}", 126, "cannot execute {garbage}: Exec format error"),
        ("{orphaned}", 126, "cannot execute {orphaned}: its interpreter is missing"),
    ],
)
def test_a_command_that_cannot_be_executed(
    start: Start, script: Callable[[str, str], str], command: str, code: int, why: str, *, pid1: bool
) -> None:
    files = {
        "plain": script("plain", "exit 0\n"),
        "garbage": script("garbage", "\x7fELF nothing"),
        "orphaned": script("orphaned", "#!/no/such/interpreter\n"),
    }
    os.chmod(files["plain"], 0o644)
    command, why = command.format(**files), why.format(**files)
    master = start(f"pools: {{web: {{command: [{command}, argument], workers: 3}}}}", pid1=pid1)
    assert master.wait() == code
    assert master.wait_for("worker_exited", pool="web", code=code)["error"] == why.replace(":", " argument:", 1)
    in_init_mode = start(args=["--init", command, "argument"], pid1=pid1)
    assert in_init_mode.wait() == code
    assert in_init_mode.errors == f"entrypoint: {why.replace(':', ' argument:', 1)}\n"


def test_a_command_that_vanishes_later_is_a_failed_boot(start: Start, script: Callable[[str, str], str]) -> None:
    program = script("program", "#!/bin/sh\nexec sleep 1000\n")
    master = start(f"pools: {{web: {{command: [{program}], restart: {{backoff: {{initial: 20ms}}}}}}}}")
    first = master.wait_for("worker_started")
    master.wait_for_exec(first["pid"], "sleep")
    os.rename(program, f"{program}.away")
    os.kill(first["pid"], signal.SIGKILL)
    assert master.wait_for("worker_exited", code=127)["error"] == f"cannot execute {program}: no such file"
    os.rename(f"{program}.away", program)
    master.wait_for("worker_started")
    assert master.stop()[0] == 0
