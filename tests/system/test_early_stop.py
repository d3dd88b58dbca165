"""A stop that is asked for before the master is up, or while it does something else."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Start

POOL = "pools: {web: {command: [sleep, '1000'], workers: 2}}"
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

# Blocks every signal before the master is executed, as if it had been quick enough to do so itself.
MASKED = ("python3", "-c", "import os, signal, sys; signal.pthread_sigmask(0, signal.valid_signals()); print('masked', flush=True); os.execvp(sys.argv[1], sys.argv[1:])")  # fmt: skip  # noqa: E501 - a program


def burn(seconds: float) -> None:
    """Let a moment pass that is part of the test: nothing happens at its end that could be waited for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@pytest.mark.parametrize("config", [POOL, ""], ids=["pool", "init"])
def test_a_term_at_any_moment_after_the_mask_is_obeyed(start: Start, config: str) -> None:
    chances = random.Random(7)
    for number in range(30):
        expected = 0 if config else 143
        master = start(config, wrap=MASKED) if config else start(args=["--init", "sleep", "1000"], wrap=MASKED)
        master.wait_for_line("masked")
        burn(chances.uniform(0, 0.15) if number % 2 else chances.uniform(0, 0.03))
        code, seconds = master.stop(chances.choice(STOPS) if config else signal.SIGTERM)
        assert code == expected, master.story()
        assert seconds < 2, master.story()
        assert master.errors == ""


def test_a_term_at_any_moment_is_obeyed_by_pid_1(start: Start) -> None:
    chances = random.Random(11)
    for _ in range(20):
        master = start(POOL, wrap=MASKED, pid1=True)
        master.wait_for_line("masked")
        burn(chances.uniform(0, 0.1))
        code, seconds = master.stop(chances.choice(STOPS))
        assert code == 0, master.story()
        assert seconds < 2, master.story()
        assert master.errors == ""


def test_a_term_without_any_help_ends_it_at_once(start: Start) -> None:
    """Before the interpreter's first line the kernel does what it does to every program: it ends it."""
    chances = random.Random(13)
    for _ in range(20):
        master = start(POOL)
        burn(chances.uniform(0, 0.15))
        code, seconds = master.stop()
        assert code in {0, -signal.SIGTERM}
        assert seconds < 2
        assert master.errors == ""


@pytest.mark.parametrize("pid1", [False, True])
def test_a_term_during_an_init_command(start: Start, *, pid1: bool) -> None:
    master = start(f"init: [{{name: slow, command: [sh, -c, 'echo migrating; exec sleep 1000']}}]\n{POOL}", pid1=pid1)
    master.wait_for_line("migrating")
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 1
    assert not master.all("worker_started", pool="web")


def test_a_term_during_boot_of_the_second_of_two_pools(start: Start) -> None:
    master = start(
        """
        pools:
          first: {command: [sleep, '1000'], ready: {after: 30s}}
          second: {command: [sleep, '1000'], after: [first]}
        """
    )
    master.wait_for("worker_started", pool="first")
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 1
    assert not master.all("worker_started", pool="second")


def test_a_term_while_many_workers_are_spawned(start: Start) -> None:
    master = start("pools: {web: {command: [sh, -c, 'echo up $ENTRYPOINT_SLOT; exec sleep 1000'], workers: 300}}")
    master.wait_for_line("up 3")  # the log itself is written when there is time
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 3
    assert len(master.all("worker_started")) < 300


def test_a_term_during_backoff(start: Start) -> None:
    master = start("pools: {web: {command: [sh, -c, exit 3], restart: {backoff: {initial: 60s, max: 60s}}}}")
    master.wait_for("pool_backoff")
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 1


def test_a_storm_of_terms(start: Start) -> None:
    master = start(POOL)
    master.wait_for("worker_started", slot=1)
    pid = master.pid
    for _ in range(2000):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            break
    assert master.wait() == 0


def test_a_master_that_was_frozen_obeys_when_it_thaws(start: Start) -> None:
    master = start(POOL)
    workers = [master.wait_for("worker_started", slot=slot)["pid"] for slot in range(2)]
    master.send(signal.SIGSTOP)
    master.until(lambda: master.status_of(master.pid, "State").startswith("T"))
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    master.send(signal.SIGTERM)
    code, seconds = master.stop(signal.SIGCONT)
    assert code == 0
    assert seconds < 1


def test_workers_do_not_outlive_a_killed_master(start: Start, script: Callable[[str, str], str]) -> None:
    master = start("pools: {web: {command: [sleep, '1000'], workers: 3}}")
    pids = [master.wait_for("worker_started", slot=slot)["pid"] for slot in range(3)]
    for pid in pids:
        master.wait_for_exec(pid, "sleep")
    assert master.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    master.until(lambda: not any(master.alive(pid) for pid in pids))
