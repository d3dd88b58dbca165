"""Commands around a worker's life: post_start and pre_stop."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.system.live import Live

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Master, Start

    Script = Callable[[str, str], str]

# Tells when it is asked to stop, and what it has time for.
WORKER = """#!/bin/sh
trap 'echo asked; sleep 0.1; echo bye; exit 0' TERM
echo up
while :; do sleep 0.05; done
"""
QUICK = "ready: {after: 0s}, restart: {min_uptime: 0s}"


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:
    return Live(start, entrypoint, tmp_path)


@pytest.fixture
def worker(script: Script) -> str:
    return script("worker", WORKER)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that hooks wait for."""
    return tmp_path / "open"


def waiting(gate: Path, then: str = "exit 0") -> str:
    return f"#!/bin/sh\necho hook\nwhile ! [ -e {gate} ]; do sleep 0.02; done\n{then}\n"


def runs(master: Master, program: str) -> bool:
    return any(program in command for command in master.descendants().values())


# -- post_start ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pid1", [False, True])
def test_post_start_runs_as_its_worker_before_that_is_ready(
    live: Live, worker: str, script: Script, tmp_path: Path, gate: Path, *, pid1: bool
) -> None:
    (tmp_path / "secret").write_text("from a file")
    show = 'echo "$MAINPID|$1|$SECRET|$(id -u)|$(id -g)|$(pwd -P)|$(umask)|${NOTIFY_SOCKET-}|${LISTEN_FDS-}"'
    hook = script("hook", waiting(gate).replace("echo hook", f"echo hook {show.removeprefix('echo ')}"))
    master = live.start(
        f"""
        sockets: {{http: {{bind: 'unix:{tmp_path}/http.sock'}}}}
        pools:
          web:
            command: [{worker}]
            workers: 2
            user: nobody
            umask: "027"
            cwd: /usr
            sockets: [http]
            env: {{SECRET: {{file: {tmp_path}/secret}}}}
            lifecycle: {{post_start: [{hook}, $(ENTRYPOINT_WORKER)]}}
            ready: {{after: 0s}}
        """,
        pid1=pid1,
    )
    for slot in range(2):
        pid = master.wait_for("worker_started", slot=slot)["pid"]
        said = master.wait_for_line(rf"hook (\d+)\|web/{slot}\|(.*)")
        assert int(said[1]) == pid
        assert said[2] == "from a file|65534|65534|/usr|0027||"
    assert [w["state"] for w in live.pool()["workers"]] == ["starting"] * 2
    gate.touch()
    for slot in range(2):
        master.wait_for("worker_ready", slot=slot)
    assert master.stop()[0] == 0


def test_a_worker_is_ready_when_it_says_so_and_its_post_start_is_done(live: Live, script: Script, gate: Path) -> None:
    worker = script("worker", "#!/bin/sh\nsystemd-notify --ready --status=mine\necho said\nexec sleep 1000\n")
    pool = f"command: [{worker}], ready: {{when: notify}}, lifecycle: {{post_start: [{script('hook', waiting(gate))}]}}"
    master = live.start(f"pools: {{web: {{{pool}}}}}")
    master.wait_for_line("said")
    master.wait_for_line("hook")
    (shown,) = live.pool()["workers"]
    assert (shown["state"], shown["status"]) == ("starting", "mine")
    gate.touch()
    master.wait_for("worker_ready")
    assert master.stop()[0] == 0


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        ("[sh, -c, exit 3]", "ended by exit code 3"),
        ("[sh, -c, kill -KILL $$]", "ended by signal 9"),
        ("[/no/such/file]", "cannot execute /no/such/file: no such file"),
    ],
)
def test_a_post_start_that_fails_is_a_failed_boot(start: Start, hook: str, why: str) -> None:
    master = start(
        f"""
        pools:
          web:
            command: [sleep, '1000']
            ready: {{after: 0s}}
            lifecycle: {{post_start: {hook}}}
            restart: {{give_up_after: 3, backoff: {{initial: 20ms}}}}
        """
    )
    assert master.wait() != 0
    failed = master.all("hook_failed", pool="web", slot=0, hook="post_start", level="error")
    assert [e["error"] for e in failed] == [why] * 3
    assert {(e["reason"], e["signal"]) for e in master.all("worker_exited")} == {("error", "TERM")}
    assert master.wait_for("giving_up")["reason"] == "pool web gave up: 3 failed boots in a row"
    assert not master.all("worker_ready")


def test_a_post_start_that_hangs_is_ended_by_the_boot_timeout(start: Start) -> None:
    hook = "[sh, -c, 'trap \"\" TERM; sleep 999']"
    master = start(
        f"""
        pools:
          web:
            command: [sleep, '1000']
            ready: {{after: 0s}}
            boot_timeout: 300ms
            lifecycle: {{post_start: {hook}}}
            restart: {{give_up_after: 1}}
        """
    )
    assert master.wait() == 128 + signal.SIGABRT
    assert master.wait_for("worker_exited")["reason"] == "boot_timeout"
    assert not master.all("worker_ready")


@pytest.mark.parametrize("pid1", [False, True])
def test_a_term_during_post_start_ends_it_and_stops_the_worker(
    start: Start, worker: str, script: Script, gate: Path, *, pid1: bool
) -> None:
    hook = script("hook", "#!/bin/sh\ntrap '' TERM\n" + waiting(gate))
    master = start(f"pools: {{web: {{command: [{worker}], {QUICK}, lifecycle: {{post_start: [{hook}]}}}}}}", pid1=pid1)
    master.wait_for_line("up")
    master.wait_for_line("hook")
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 5
    assert master.said[-2:] == ["asked", "bye"]
    assert not master.all("hook_failed")
    assert not master.all("worker_ready")


def test_a_worker_that_ends_takes_its_post_start_with_it(start: Start, script: Script, gate: Path) -> None:
    hook = script("hook", waiting(gate, then="echo through"))
    master = start(
        f"pools: {{web: {{command: [sleep, '1000'], {QUICK}, lifecycle: {{post_start: [{hook}]}}}}}}", pid1=True
    )
    master.wait_for("worker_started")
    master.wait_for_line("hook")
    os.kill(next(p for p in master.children() if "sleep 1000" in master.descendants()[p]), signal.SIGKILL)
    master.wait_for("worker_exited", signal="KILL")
    master.wait_for("worker_started")
    master.until(lambda: sum("/hook" in command for command in master.descendants().values()) == 1)
    gate.touch()
    master.wait_for("worker_ready")
    assert master.stop()[0] == 0
    assert master.said.count("through") == 1


# -- pre_stop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pid1", [False, True])
def test_pre_stop_runs_as_its_worker_and_is_done_before_the_stop_signal(
    start: Start, worker: str, script: Script, gate: Path, *, pid1: bool
) -> None:
    hook = script("hook", waiting(gate, then='echo "done $MAINPID $ENTRYPOINT_WORKER $(id -u)"'))
    master = start(
        f"pools: {{web: {{command: [{worker}], user: nobody, cwd: /, {QUICK}, lifecycle: {{pre_stop: [{hook}]}}}}}}",
        pid1=pid1,
    )
    master.wait_for_line("up")
    pid = master.wait_for("worker_started")["pid"]
    master.wait_for("worker_ready")
    master.send(signal.SIGTERM)
    master.wait_for_line("hook")
    master.send(signal.SIGTERM)  # the same request again
    master.wait_for("signal_received")
    master.wait_for("signal_received")
    assert not master.all("worker_stopping")
    gate.touch()
    assert master.wait() == 0
    assert master.said == ["up", "hook", f"done {pid} web/0 65534", "asked", "bye"]


@pytest.mark.parametrize("pid1", [False, True])
def test_a_pre_stop_that_hangs_is_killed_and_leaves_the_worker_its_signal_and_time(
    start: Start, worker: str, script: Script, gate: Path, *, pid1: bool
) -> None:
    """Whatever user it runs as, and whatever it has started."""
    hook = script("hook", "#!/bin/sh\ntrap '' TERM\nsleep 999 &\n" + waiting(gate))
    master = start(
        f"""
        pools:
          web:
            command: [{worker}]
            user: nobody
            cwd: /
            ready: {{after: 0s}}
            lifecycle: {{pre_stop: [{hook}]}}
            stop: {{timeout: 1500ms}}
        """,
        pid1=pid1,
    )
    master.wait_for_line("up")
    master.wait_for("worker_ready")
    master.send(signal.SIGTERM)
    master.wait_for_line("hook")
    master.wait_for_line("asked")
    master.until(lambda: not runs(master, "/hook") and not runs(master, "sleep 999"))
    assert master.wait() == 0
    assert master.said == ["up", "hook", "asked", "bye"]
    assert not master.all("worker_killed")
    assert not master.all("sweep")


def test_a_worker_that_does_not_go_is_killed_at_the_timeout_that_covers_pre_stop(start: Start, script: Script) -> None:
    stubborn = script("worker", "#!/bin/sh\ntrap 'echo asked' TERM\necho up\nwhile :; do sleep 0.05; done\n")
    hook = "[sh, -c, 'echo hook; exec sleep 999']"
    pool = f"command: [{stubborn}], {QUICK}, lifecycle: {{pre_stop: {hook}}}, stop: {{timeout: 1500ms}}"
    master = start(f"pools: {{web: {{{pool}}}}}")
    master.wait_for_line("up")
    code, seconds = master.stop()
    assert code == 137
    assert 1.4 < seconds < 5
    assert master.said == ["up", "hook", "asked"]


@pytest.mark.parametrize(
    ("hook", "why"),
    [("[sh, -c, exit 3]", "ended by exit code 3"), ("[/no/such]", "cannot execute /no/such: no such file")],
)
def test_a_pre_stop_that_fails_does_not_change_the_stop(start: Start, worker: str, hook: str, why: str) -> None:
    master = start(f"pools: {{web: {{command: [{worker}], {QUICK}, lifecycle: {{pre_stop: {hook}}}}}}}")
    master.wait_for_line("up")
    assert master.stop()[0] == 0
    failed = master.wait_for("hook_failed", hook="pre_stop", level="warning", pool="web", slot=0)
    assert failed["error"] == why
    assert master.said == ["up", "asked", "bye"]


def test_a_worker_that_ends_meanwhile_takes_its_pre_stop_with_it(
    start: Start, worker: str, script: Script, gate: Path
) -> None:
    hook = script("hook", waiting(gate))
    master = start(f"pools: {{web: {{command: [{worker}], {QUICK}, lifecycle: {{pre_stop: [{hook}]}}}}}}")
    master.wait_for_line("up")
    pid = master.wait_for("worker_ready")["pid"]
    master.send(signal.SIGTERM)
    master.wait_for_line("hook")
    os.kill(pid, signal.SIGKILL)
    assert master.wait() == 0
    assert master.said == ["up", "hook"]


@pytest.mark.parametrize("second", [signal.SIGQUIT, signal.SIGINT])
def test_a_quit_does_not_wait_for_pre_stop(start: Start, worker: str, script: Script, gate: Path, second: int) -> None:
    hook = script("hook", waiting(gate))
    master = start(f"pools: {{web: {{command: [{worker}], {QUICK}, lifecycle: {{pre_stop: [{hook}]}}}}}}")
    master.wait_for_line("up")
    master.wait_for("worker_ready")
    master.send(signal.SIGINT)
    master.wait_for_line("hook")
    code, seconds = master.stop(second)
    assert code == 0
    assert seconds < 5  # of the 20 s of its stop
    assert master.said == ["up", "hook", "asked", "bye"]  # the stop signal comes all the same, once


def test_pre_stop_runs_for_a_worker_that_is_replaced_and_not_for_one_that_has_died(
    live: Live, worker: str, tmp_path: Path
) -> None:
    hook = "[sh, -c, 'echo hook $ENTRYPOINT_SLOT']"
    master = live.start(
        f"pools: {{web: {{command: [{worker}], workers: 2, {QUICK}, lifecycle: {{pre_stop: {hook}}}}}}}"
    )
    pids = [master.wait_for("worker_ready", slot=slot)["pid"] for slot in range(2)]
    os.kill(pids[0], signal.SIGKILL)
    master.wait_for("worker_exited", pid=pids[0])
    master.wait_for("worker_ready", slot=0)
    assert live.run("scale", "web", "1")[0] == 0
    master.wait_for("worker_exited", reason="scale_down", pid=pids[1])
    assert [line for line in master.said if line.startswith("hook")] == ["hook 1"]
    assert master.stop()[0] == 0
