"""What happens in the middle of a rollout."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.system.live import FAST, SPEAKER, Live, bounds, command, end, started

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Start

    Script = Callable[[str, str], str]


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:
    return Live(start, entrypoint, tmp_path)


@pytest.fixture
def stuck(live: Live, script: Script) -> Live:
    """Two old workers, and a new one that does not get ready."""
    speaker = script("speaker", SPEAKER)
    master = live.start(
        f"""
        pools:
          web: {{command: [{speaker}, ready], workers: 2, ready: {{when: notify}}, restart: {{min_uptime: 300ms}}}}
        """
    )
    started(master, 2)
    script("speaker", SPEAKER.replace("READY=1", "STATUS=thinking"))
    master.send(signal.SIGHUP)
    master.wait_for("rollout_started")
    master.until(lambda: any(w["status"] == "thinking" for w in live.pool()["workers"]))
    return live


def test_a_term_in_the_middle_ends_it_as_fast_as_without(stuck: Live) -> None:
    master = stuck.master
    waiting = stuck.begin("restart", "web", "--wait")  # supersedes the first, and is as stuck
    master.wait_for("rollout_started", generation=3)
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 2
    assert master.wait_for("rollout_aborted", generation=3)["reason"] == "the master is stopping"
    assert end(waiting)[0] == 1


def test_a_hup_in_the_middle_supersedes(stuck: Live, script: Script) -> None:
    master = stuck.master
    script("speaker", SPEAKER)
    master.send(signal.SIGHUP)
    assert master.wait_for("rollout_aborted")["generation"] == 2
    assert master.wait_for("rollout_completed")["generation"] == 3
    stuck.settled(size=2)
    assert bounds(master.events)[0] == 2
    assert not master.all("rollout_failed")
    assert master.stop()[0] == 0


@pytest.mark.parametrize("size", [0, 1, 4])
def test_a_pool_is_scaled_in_the_middle(stuck: Live, script: Script, size: int) -> None:
    master = stuck.master
    assert stuck.run("scale", "web", str(size))[0] == 0
    script("speaker", SPEAKER)
    master.send(signal.SIGHUP)
    master.wait_for("rollout_completed", generation=3)
    stuck.settled(size=size)
    assert stuck.run("scale", "web", "2")[0] == 0
    stuck.settled(size=2)
    assert master.stop()[0] == 0


@pytest.mark.parametrize("what", ["TERM", "HUP", "scale"])
def test_while_a_generation_is_taken_back(live: Live, what: str) -> None:
    def config(seconds: int, after: str = "100ms", min_uptime: str = "1h") -> str:
        more = f"ready: {{after: {after}}}, restart: {{min_uptime: {min_uptime}}}"
        return f"pools: {{web: {{command: [sleep, '{seconds}'], workers: 3, {more}}}}}"

    master = live.start(config(1000))
    started(master, 3)
    live.write(config(2000, after="400ms"))
    assert live.run("reload")[0] == 0
    new = started(master, 3)
    master.until(lambda: live.pool()["rollout"]["phase"] == "watching")
    os.kill(new[0], signal.SIGKILL)
    master.wait_for("rollout_failed")
    rollout = live.pool()["rollout"]
    assert (rollout["generation"], rollout["phase"]) == (1, "rolling back")
    assert rollout["reason"].endswith("web/3 ended by signal 9")
    runs = 1000
    if what == "HUP":
        runs = 3000
        live.write(config(runs, min_uptime="300ms"))
        master.send(signal.SIGHUP)
        master.wait_for("rollout_completed", generation=3)
    elif what == "scale":
        assert live.run("scale", "web", "5")[0] == 0
        live.settled(size=5)
        assert live.run("scale", "web", "3")[0] == 0
    if what != "TERM":
        for pid in live.settled(size=3):
            assert command(pid) == f"sleep {runs}"
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 2


def test_old_and_new_workers_that_crash_in_the_middle_are_replaced(live: Live) -> None:
    master = live.start(
        """
        pools:
          web:
            {command: [sleep, '1000'], workers: 4, ready: {after: 0s}, restart: {min_uptime: 1ms},
             rollout: {min_ready: 300ms}}
        """
    )
    old = started(master, 4)
    master.send(signal.SIGHUP)
    new = started(master, 1)[0]
    os.kill(old[3], signal.SIGKILL)
    master.wait_for("worker_exited", pid=old[3])
    started(master, 1)
    os.kill(new, signal.SIGKILL)
    master.wait_for("worker_exited", pid=new)
    assert master.wait_for("rollout_completed")["generation"] == 2
    assert not {*old, new} & set(live.settled(size=4))
    ready, living = bounds(master.events)
    assert ready >= 3
    assert living == 5
    assert master.stop()[0] == 0


def test_heartbeats_go_on_and_a_new_generation_without_any_is_no_good(live: Live, script: Script) -> None:
    def config(beat: str) -> str:
        return f"""
        pools:
          web:
            command: [{script("speaker", SPEAKER)}, ready, {beat}]
            workers: 2
            ready: {{when: notify}}
            restart: {{min_uptime: 2s}}
            rollout: {{min_ready: 1200ms}}
            heartbeat: {{timeout: 1s, abort_grace: 100ms}}
        """

    master = live.start(config("beat"))
    started(master, 2)
    assert live.run("restart", "web", "--wait")[0] == 0
    assert not master.all("worker_hung")
    new = live.settled(size=2)
    live.write(config("silent"))
    code, _, error = live.run("reload", "--wait")
    assert code == 1
    assert "hung: heartbeat_timeout" in error
    master.wait_for("rolled_back")
    assert live.settled(size=2) == new
    assert master.stop()[0] == 0


def test_two_hundred_hups(live: Live) -> None:
    master = live.start(f"pools: {{web: {{command: [sleep, '1000'], workers: 3, {FAST}}}}}", pid1=True)
    old = started(master, 3)
    pid = master.pid
    for _ in range(200):
        os.kill(pid, signal.SIGHUP)
        master.until(lambda: not int(master.status_of(pid, "ShdPnd"), 16))  # else the kernel merges them
    told = len(master.all("config_reloaded"))
    master.wait_for("config_reloaded")
    master.wait_for("rollout_completed", timeout=30)
    new = live.settled(size=3)
    assert told <= len(master.all("config_reloaded")) < 200
    assert not set(old) & set(new)
    master.until(lambda: [*master.descendants().values()] == ["S sleep 1000 "] * 3)
    assert not master.all("rollout_failed")
    assert master.stop()[0] == 0


@pytest.mark.parametrize("drain", ["0s", "500ms"])
def test_a_hup_while_it_stops_changes_nothing(live: Live, drain: str) -> None:
    slow = "[sh, -c, 'trap \"sleep 0.5; echo bye; exit 0\" TERM; echo up; while :; do sleep 0.02; done']"
    master = live.start(f"pools: {{web: {{command: {slow}, workers: 2, {FAST}}}}}\nshutdown: {{drain_delay: {drain}}}")
    started(master, 2)
    master.until(lambda: master.said.count("up") == 2)
    master.send(signal.SIGTERM)
    master.wait_for("shutdown")
    master.send(signal.SIGHUP)
    master.wait_for("worker_stopping")
    master.send(signal.SIGHUP)
    assert master.wait() == 0
    assert len(master.all("worker_started")) == len(master.all("worker_stopping")) == master.said.count("bye") == 2
    assert not master.all("config_reloaded")
