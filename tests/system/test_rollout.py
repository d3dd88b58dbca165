"""Rollouts: new workers before the old ones go, and no further when the new ones are no good."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.system.live import FAST, SPEAKER, Census, Live, bounds, command, end, started

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Event, Start

    Script = Callable[[str, str], str]

NOBODY = ("setpriv", "--reuid", "1234568", "--regid", "1234568", "--clear-groups")


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:
    return Live(start, entrypoint, tmp_path)


def sleeper(what: str) -> str:
    return f"#!/bin/sh\necho {what} $$\nexec sleep 1000\n"


def seconds_between(first: Event, second: Event) -> float:
    times = [datetime.fromisoformat(e["timestamp"]) for e in (first, second)]
    return (times[1] - times[0]).total_seconds()


# -- make before break ---------------------------------------------------------------------------------------


def test_a_hup_replaces_every_worker_of_every_pool_make_before_break(live: Live) -> None:
    master = live.start(
        f"""
        pools:
          web: {{command: [sleep, '1000'], workers: 4, {FAST}}}
          jobs: {{command: [tail, -f, /dev/null], workers: 2, {FAST}}}
        """,
        pid1=True,
    )
    old = {*started(master, 4, "web"), *started(master, 2, "jobs")}
    with Census(master, "sleep") as census:
        master.send(signal.SIGHUP)
        for pool in ("web", "jobs"):
            assert master.wait_for("rollout_completed", pool=pool)["generation"] == 2
    assert bounds(master.events, "web") == (4, 5)
    assert bounds(master.events, "jobs") == (2, 3)
    assert 4 <= census.most <= 5
    assert not old & {*live.settled("web", size=4), *live.settled("jobs", size=2)}
    gone = [e["pid"] for e in master.all("worker_exited", pool="web")]
    assert gone == sorted(gone), "the oldest go first"
    assert master.all("worker_exited", reason="rollout") == master.all("worker_exited")
    assert {line.split()[1] for line in master.descendants().values()} >= {"sleep", "tail"}
    assert master.stop()[0] == 0


@pytest.mark.parametrize(
    ("rollout", "ready", "living"),
    [
        ("{max_surge: 2}", 4, 6),
        ("{max_surge: 100%}", 4, 8),
        ("{max_surge: 0, max_unavailable: 1}", 3, 4),
        ("{max_surge: 50%, max_unavailable: 25%}", 3, 6),
    ],
)
def test_surge_and_unavailability_are_used_and_not_exceeded(live: Live, rollout: str, ready: int, living: int) -> None:
    master = live.start(f"pools: {{web: {{command: [sleep, '1000'], workers: 4, rollout: {rollout}, {FAST}}}}}")
    started(master, 4)
    assert live.run("restart", "web", "--wait")[0] == 0
    master.wait_for("rollout_completed")
    fewest, most = bounds(master.events)
    assert fewest >= ready
    assert most <= living
    assert fewest < 4 or most > 5
    live.settled(size=4)
    assert master.stop()[0] == 0


def test_a_new_worker_counts_when_it_has_been_ready_for_min_ready(live: Live) -> None:
    master = live.start(f"pools: {{web: {{command: [sleep, '1000'], rollout: {{min_ready: 600ms}}, {FAST}}}}}")
    started(master, 1)
    master.send(signal.SIGHUP)
    ready, stopping = master.wait_for("worker_ready"), master.wait_for("worker_stopping")
    assert seconds_between(ready, stopping) >= 0.59
    master.wait_for("rollout_completed")
    assert master.stop()[0] == 0


def test_a_rollout_without_progress_fails_at_its_deadline_and_one_with_progress_does_not(
    live: Live, script: Script
) -> None:
    def config(slow: str) -> str:
        return f"""
        pools:
          web:
            command: [{script("speaker", SPEAKER)}, {slow}]
            workers: 5
            ready: {{when: notify}}
            restart: {{min_uptime: 100ms}}
            rollout: {{deadline: 1500ms, min_ready: 400ms}}
            boot_timeout: 0s
        """

    master = live.start(config("ready"))
    old = started(master, 5)
    master.send(signal.SIGHUP)
    first, last = master.wait_for("rollout_started"), master.wait_for("rollout_completed")
    assert seconds_between(first, last) > 1.5
    new = live.settled(size=5)
    assert not set(new) & set(old)
    live.write(config("never"))
    code, _, error = live.run("reload", "--wait")
    assert (code, error) == (1, "entrypoint: web: rollout to generation 3 failed: no progress for 1.5 s\n")
    assert live.settled(size=5) == new
    assert master.stop()[0] == 0


# -- what is new ---------------------------------------------------------------------------------------------


def test_a_hup_picks_up_new_code(live: Live, script: Script) -> None:
    program = script("worker", sleeper("one"))
    master = live.start(f"pools: {{web: {{command: [{program}], workers: 2, {FAST}}}}}")
    started(master, 2)
    script("worker", sleeper("two"))
    master.send(signal.SIGHUP)
    master.wait_for("rollout_completed")
    assert [line.split()[0] for line in master.said] == ["one", "one", "two", "two"]
    assert {int(line.split()[1]) for line in master.said[2:]} == set(live.settled(size=2))
    assert master.stop()[0] == 0


BAD = {
    "exits": ("[sh, -c, exit 3]", "ended before it was ready: {w} ended by exit code 3"),
    "is killed": ("[sh, -c, kill -9 $$]", "ended before it was ready: {w} ended by signal 9"),
    "is never ready": ("[{speaker}, deaf]", "ended before it was ready: {w} hung: boot_timeout"),
    "cannot be executed": ("[/etc/passwd]", "ended before it was ready: cannot execute /etc/passwd: Permission denied"),
    "is not there": ("[/no/such]", "ended before it was ready: cannot execute /no/such: no such file"),
    "dies young": ("[{speaker}, ready, dies]", "after its start: {w} ended by signal 14"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_a_program_that_is_no_good_goes_and_the_old_one_stays(live: Live, script: Script, bad: str) -> None:
    speaker = script("speaker", SPEAKER)

    def config(program: str) -> str:
        return f"""
        pools:
          web:
            command: {program}
            workers: 2
            ready: {{when: notify}}
            boot_timeout: 1200ms
            restart: {{min_uptime: 700ms}}
            heartbeat: {{abort_grace: 100ms}}
            rollout: {{min_ready: 400ms}}
        """

    program, why = BAD[bad]
    master = live.start(config(f"[{speaker}, ready, one]"))
    old = live.settled(size=2)
    live.write(config(program.replace("{speaker}", speaker)))
    code, out, error = live.run("reload", "--wait")
    assert code == 1
    assert out == "web: rollout to generation 2 has begun\n"
    assert error.startswith("entrypoint: web: rollout to generation 2 failed: web/2 ended ")
    assert why.format(w="web/2") in error
    pool = live.pool()
    assert pool["last_error"] == error.removeprefix("entrypoint: web: ").rstrip()
    assert pool["generation"] == 1
    assert live.settled(size=2) == old
    assert len(master.all("worker_exited")) <= 1

    os.kill(old[0], signal.SIGKILL)
    master.wait_for("worker_exited", pid=old[0])
    new, kept = live.settled(size=2)
    assert kept == old[1]
    assert "one" in command(new)

    code, _, error = live.run("restart", "web", "--wait")
    assert code == 1
    assert error.startswith("entrypoint: web: rollout to generation 3 failed: web/2 ended ")
    assert live.settled(size=2) == [new, kept]

    live.write(config(f"[{speaker}, ready, two]"))
    assert live.run("reload", "--wait")[0] == 0
    pool = live.pool()
    assert (pool["last_error"], pool["generation"], pool["rollout"]) == ("", 4, None)
    for pid in live.settled(size=2):
        assert "two" in command(pid)
    assert not master.all("giving_up")
    assert master.stop()[0] == 0


def test_a_program_that_dies_before_min_uptime_is_taken_back_altogether(live: Live) -> None:
    def config(seconds: int) -> str:
        return f"""
        pools: {{web: {{command: [sleep, '{seconds}'], workers: 3, ready: {{after: 0s}}, restart: {{min_uptime: 1m}}}}}}
        """

    master = live.start(config(1000))
    started(master, 3)
    live.write(config(2000))
    waiting = live.begin("reload", "--wait")
    new = started(master, 3)
    master.until(lambda: (live.pool()["rollout"] or {}).get("phase") == "watching")
    os.kill(new[0], signal.SIGKILL)
    code, _, error = end(waiting)
    assert code == 1
    assert "s after its start: web/3 ended by signal 9" in error
    master.wait_for("rolled_back", generation=1)
    for pid in live.settled(size=3):
        assert command(pid) == "sleep 1000"
    back = master.events[master.events.index(master.all("rollout_failed")[0]) :]
    assert len([e for e in back if e["event"] == "worker_started"]) == 3
    assert master.stop()[0] == 0


def test_a_file_that_was_broken_and_is_mended(live: Live, script: Script) -> None:
    program = script("worker", sleeper("one"))
    master = live.start(f"pools: {{web: {{command: [{program}], {FAST}}}}}")
    old = started(master, 1)
    script("worker", "#!/bin/sh\nexit 1\n")
    master.send(signal.SIGHUP)
    master.wait_for("rollout_failed")
    assert live.settled(size=1) == old
    script("worker", sleeper("two"))
    master.send(signal.SIGHUP)
    assert master.wait_for("rollout_completed")["generation"] == 3
    assert master.stop()[0] == 0


# -- before it runs ------------------------------------------------------------------------------------------


def test_a_hup_during_an_init_command_is_obeyed_before_any_pool(live: Live, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    init = f"init: [{{name: migrate, command: [sh, -c, 'echo init; until [ -e {gate} ]; do sleep 0.02; done']}}]"
    master = live.start(f"{init}\npools: {{web: {{command: [sh, -c, echo one; exec sleep 1000], {FAST}}}}}")
    master.wait_for_line("init")
    live.write(f"{init}\npools: {{web: {{command: [sh, -c, echo two; exec sleep 1000], {FAST}}}}}")
    master.send(signal.SIGHUP)
    master.wait_for("config_reloaded")
    gate.touch()
    master.wait_for_line("two")
    assert master.said == ["init", "two"]
    assert not master.all("reload_incomplete")
    live.settled(size=1)
    assert master.stop()[0] == 0


def test_a_hup_during_the_boot_replaces_what_does_not_get_ready(live: Live, script: Script) -> None:
    speaker = script("speaker", SPEAKER)
    master = live.start(
        f"""
        pools:
          web: {{command: [{speaker}, deaf], workers: 2, ready: {{when: notify}}, restart: {{min_uptime: 300ms}}}}
          next: {{command: [sh, -c, echo next; exec sleep 1000], after: [web], {FAST}}}
        """
    )
    for _ in range(2):
        master.wait_for("worker_started")
    script("speaker", SPEAKER.replace('"ready" in', '"deaf" in'))
    master.send(signal.SIGHUP)
    started(master, 2)
    master.wait_for_line("next")
    master.wait_for("rollout_completed", pool="web")
    live.settled("web", size=2)
    live.settled("next", size=1)
    assert master.stop()[0] == 0


def test_signals_do_what_they_are_mapped_to(live: Live) -> None:
    master = live.start(
        f"""
        pools: {{web: {{command: [sleep, '1000'], {FAST}}}}}
        signals: {{HUP: reload, USR1: restart, USR2: scale_up, WINCH: shutdown}}
        """
    )
    started(master, 1)
    master.send(signal.SIGHUP)
    master.wait_for("config_reloaded")
    assert not master.all("rollout_started")
    master.send(signal.SIGUSR1)
    master.wait_for("rollout_completed")
    master.send(signal.SIGUSR2)
    master.wait_for("pool_resized", workers=2)
    live.settled(size=2)
    assert live.pool()["pinned"]
    assert master.stop(signal.SIGWINCH)[0] == 0


# -- a world that refuses ------------------------------------------------------------------------------------


def test_a_rollout_waits_until_there_are_processes_to_be_had(live: Live, tmp_path: Path) -> None:
    """The limit counts the processes of a user: no more than the master and its workers."""
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    live.socket = tmp_path / "open" / "c.sock"
    backoff = "backoff: {initial: 50ms, max: 100ms}"
    master = live.start(
        f"""
        pools:
          web:
            command: [sleep, '1000']
            workers: 3
            ready: {{after: 50ms}}
            restart: {{min_uptime: 300ms, {backoff}}}
        """,
        wrap=NOBODY,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (100, 100)),
        cwd="/",
    )
    old = started(master, 3)

    def limit(number: int) -> None:
        subprocess.run([*NOBODY, "prlimit", f"--pid={master.pid}", f"--nproc={number}:100"], check=True)

    limit(4)
    master.send(signal.SIGHUP)  # nobody to read the configuration
    error = master.wait_for("reload_failed")["error"]
    assert error == f"cannot load {live.file}: Resource temporarily unavailable"
    waiting = live.begin("restart", "web", "--wait")
    for _ in range(3):
        master.wait_for("spawn_refused")
    assert set(live.pids()) >= set(old)
    limit(100)
    assert end(waiting)[0] == 0
    assert not set(old) & set(live.settled(size=3))
    assert bounds(master.events)[0] == 3
    assert master.stop()[0] == 0
