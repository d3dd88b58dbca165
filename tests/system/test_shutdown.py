"""How the master ends: in order, in time, with the code that says what happened, and leaving nothing."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.conftest import Start

PIDS = pytest.mark.parametrize("pid1", [False, True])
OBEDIENT = """[sh, -c, 'trap "echo bye; exit 0" TERM; echo up; while :; do sleep 0.05; done']"""
STUBBORN = """[sh, -c, 'trap "echo no" TERM; echo up; while :; do sleep 0.05; done']"""
JOB = "restart: {policy: never}"


@PIDS
def test_a_requested_stop_exits_with_0(start: Start, *, pid1: bool) -> None:
    master = start(f"pools: {{web: {{command: {OBEDIENT}, workers: 2}}}}", pid1=pid1)
    master.wait_for_line("up")
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 1
    assert master.wait_for("master_exiting")["reason"] == "requested by SIGTERM"


def test_a_worker_that_dies_of_the_stop_signal_was_drained(start: Start) -> None:
    master = start("pools: {web: {command: [sleep, '1000'], workers: 3}}")
    master.wait_for("worker_started", slot=2)
    assert master.stop()[0] == 0


@PIDS
def test_a_stubborn_worker_is_killed_at_its_deadline(start: Start, tmp_path: Path, *, pid1: bool) -> None:
    master = start(f"pools: {{web: {{command: {STUBBORN}, stop: {{timeout: 600ms}}}}}}", pid1=pid1)
    master.wait_for_line("up")
    code, seconds = master.stop()
    assert code == 137
    assert 0.6 <= seconds < 1.1
    assert master.said.count("no") == 1  # one stop signal, never a second
    master.wait_for("worker_killed", pool="web", slot=0)


def test_a_stubborn_worker_that_is_not_critical_does_not_change_the_code(start: Start) -> None:
    master = start(
        f"""
        pools:
          web: {{command: [sleep, '1000']}}
          extra: {{command: {STUBBORN}, critical: false, stop: {{timeout: 300ms}}}}
        """
    )
    master.wait_for_line("up")
    assert master.stop()[0] == 0


def test_the_stop_signal_can_be_chosen(start: Start) -> None:
    traps = 'trap "echo usr1; exit 0" USR1; trap "echo term" TERM'
    command = f"[sh, -c, '{traps}; echo up; while :; do sleep 0.05; done']"
    master = start(f"pools: {{web: {{command: {command}, stop: {{signal: USR1}}}}}}")
    master.wait_for_line("up")
    assert master.stop()[0] == 0
    assert "usr1" in master.said
    assert "term" not in master.said


@PIDS
def test_an_interrupted_job_exits_with_143(start: Start, *, pid1: bool) -> None:
    master = start(f"pools: {{job: {{command: [sleep, '1000'], {JOB}}}}}", pid1=pid1)
    master.wait_for("worker_started")
    assert master.stop()[0] == 143


@pytest.mark.parametrize("policy", ["never", "on-failure"])
def test_a_completed_job_exits_with_0(start: Start, policy: str) -> None:
    master = start(f"pools: {{job: {{command: ['true'], workers: 3, restart: {{policy: {policy}}}}}}}")
    assert master.wait() == 0
    assert master.wait_for("master_exiting")["reason"] == "all pools completed"
    assert len(master.all("worker_started")) == 3


def test_a_failed_job_exits_with_the_first_code_that_is_not_0(start: Start) -> None:
    command = "[sh, -c, 'exit $ENTRYPOINT_SLOT']"
    master = start(f"pools: {{job: {{command: {command}, workers: 2, {JOB}}}}}")
    assert master.wait() == 1


def test_completion_of_the_critical_pools_stops_the_rest(start: Start) -> None:
    master = start(
        f"""
        pools:
          job: {{command: [sh, -c, 'sleep 0.1; exit 5'], {JOB}}}
          helper: {{command: [sleep, '1000'], critical: false}}
        """
    )
    assert master.wait() == 5
    master.wait_for("worker_exited", pool="helper", reason="shutdown")


def test_on_failure_replaces_failures_only(start: Start, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    command = f"[sh, -c, 'test -e {flag} && exit 0; touch {flag}; exit 9']"
    master = start(f"pools: {{job: {{command: {command}, restart: {{policy: on-failure}}}}}}")
    assert master.wait() == 0
    assert [e.get("code") for e in master.all("worker_exited")] == [9, 0]


# -- what workers leave behind -------------------------------------------------------------------------------

ESCAPES = {
    "a child": "sleep 1000 &",
    "a session": "setsid sleep 1000 &",
    "a daemon": "(setsid sleep 1000 &) &",
    "a deaf daemon": """(setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 0.1; done' &) &""",
}


@PIDS
@pytest.mark.parametrize("kind", ESCAPES)
def test_descendants_that_escaped_are_gone_at_the_end(start: Start, kind: str, *, pid1: bool) -> None:
    master = start(
        f"pools:\n  web:\n    command:\n      - sh\n      - -c\n      - |\n        {ESCAPES[kind]}\n"
        "        echo up\n        exec sleep 1000\n",
        pid1=pid1,
    )
    master.wait_for_line("up")
    master.until(lambda: len(master.descendants()) >= 2)
    everything = list(master.descendants())
    code, seconds = master.stop()
    assert code == 0  # leftovers that had to be killed do not count
    assert seconds < 2.2
    assert not [pid for pid in everything if master.alive(pid)]


def test_the_group_of_a_crashed_leader_gets_term_and_its_successor_waits_for_it(start: Start, tmp_path: Path) -> None:
    member = """sh -c 'trap "echo member got TERM; exit 0" TERM; echo member up; while :; do sleep 0.05; done' &"""
    master = start(
        f"pools:\n  web:\n    command:\n      - sh\n      - -c\n      - |\n        {member}\n        exec sleep 1000\n"
    )
    pid = master.wait_for("worker_started")["pid"]
    master.wait_for_line("member up")
    os.kill(pid, signal.SIGKILL)
    assert master.wait_for("worker_exited", pid=pid)["left_processes"] is True
    master.wait_for("worker_started", slot=0)
    master.wait_for_line("member got TERM")
    assert master.stop()[0] == 0


def test_a_deaf_group_of_a_crashed_leader_is_killed_after_a_second(start: Start) -> None:
    member = """sh -c 'trap "" TERM; echo member $$; while :; do sleep 0.1; done' &"""
    master = start(
        f"pools:\n  web:\n    command:\n      - sh\n      - -c\n      - |\n        {member}\n        exec sleep 1000\n"
    )
    pid = master.wait_for("worker_started")["pid"]
    member_pid = int(master.wait_for_line(r"member (\d+)")[1])
    os.kill(pid, signal.SIGKILL)
    died = master.wait_for("worker_exited", pid=pid)
    again = master.wait_for("worker_started", slot=0)
    assert 0.9 < seconds_between(died, again) < 1.6
    assert not master.alive(member_pid)
    code, seconds = master.stop(signal.SIGQUIT)
    assert code in {0, 137}
    assert seconds < 2.5


def seconds_between(first: dict[str, str], second: dict[str, str]) -> float:
    def parse(text: str) -> float:
        hours, minutes, seconds = text.rstrip("Z").partition("T")[2].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)

    return (parse(second["timestamp"]) - parse(first["timestamp"])) % 86400


def test_what_left_the_group_of_a_killed_worker_is_killed_with_it(start: Start) -> None:
    escape = """setsid sh -c 'trap "" TERM; echo escaped; while :; do sleep 0.1; done' &"""
    master = start(
        f"pools:\n  web:\n    command:\n      - sh\n      - -c\n      - |\n        {escape}\n"
        """        trap "" TERM; while :; do sleep 0.1; done\n    stop: {timeout: 300ms}\n"""
    )
    master.wait_for_line("escaped")
    code, seconds = master.stop()
    assert code == 137
    assert seconds < 1  # not found by the sweep a second later


# -- signals -------------------------------------------------------------------------------------------------


def delayed(command: str = OBEDIENT) -> str:
    return f"""
    pools: {{web: {{command: {command}}}}}
    shutdown: {{drain_delay: 20s}}
    """


def test_during_the_drain_delay_everything_serves_and_the_dead_are_replaced(start: Start) -> None:
    master = start("pools: {web: {command: [sleep, '1000']}}\nshutdown: {drain_delay: 1s}")
    pid = master.wait_for("worker_started")["pid"]
    master.send(signal.SIGTERM)
    master.wait_for("shutdown")
    os.kill(pid, signal.SIGKILL)
    master.wait_for("worker_exited", pid=pid)
    master.wait_for("worker_started", slot=0)
    assert master.wait() == 0
    assert 1.0 <= master.all("master_exiting")[0]["uptime"] < 2.5


def test_a_second_term_a_second_later_ends_the_drain_delay(start: Start) -> None:
    master = start(delayed())
    master.wait_for_line("up")
    master.send(signal.SIGTERM)
    at = master.wait_for("shutdown")
    master.send(signal.SIGTERM)  # the same request again
    master.wait_for("signal_received", signal="TERM")
    early = master.wait_for("signal_received", signal="TERM")
    assert seconds_between(at, early) < 1
    assert not master.all("worker_stopping")
    with pytest.raises(TimeoutError):
        master.wait(timeout=1.1)
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 1
    assert master.said.count("bye") == 1


def test_int_leaves_out_the_drain_delay(start: Start) -> None:
    master = start(delayed())
    master.wait_for_line("up")
    code, seconds = master.stop(signal.SIGINT)
    assert code == 0
    assert seconds < 1


def test_int_ends_the_drain_delay_of_a_term(start: Start) -> None:
    master = start(delayed())
    master.wait_for_line("up")
    master.send(signal.SIGTERM)
    master.wait_for("shutdown")
    code, seconds = master.stop(signal.SIGINT)
    assert code == 0
    assert seconds < 1


def test_a_second_int_kills_after_a_second(start: Start) -> None:
    master = start(f"pools: {{web: {{command: {STUBBORN}}}}}")
    master.wait_for_line("up")
    master.send(signal.SIGINT)
    master.wait_for_line("no")
    code, seconds = master.stop(signal.SIGINT)
    assert code == 137
    assert 0.9 < seconds < 1.6
    assert master.said.count("no") == 1


@PIDS
def test_quit_kills_after_a_second(start: Start, *, pid1: bool) -> None:
    master = start(delayed(STUBBORN), pid1=pid1)
    master.wait_for_line("up")
    code, seconds = master.stop(signal.SIGQUIT)
    assert code == 137
    assert 0.9 < seconds < 1.6


def test_quit_of_obedient_workers_is_quick_and_clean(start: Start) -> None:
    master = start(delayed())
    master.wait_for_line("up")
    code, seconds = master.stop(signal.SIGQUIT)
    assert code == 0
    assert seconds < 1


def test_user_signals_reach_every_worker(start: Start) -> None:
    traps = 'trap "echo $ENTRYPOINT_SLOT usr1" USR1; trap "echo $ENTRYPOINT_SLOT usr2" USR2'
    command = f"[sh, -c, '{traps}; echo $ENTRYPOINT_SLOT up; while :; do sleep 0.05; done']"
    master = start(f"pools: {{web: {{command: {command}, workers: 2}}}}")
    for slot in range(2):
        master.wait_for_line(f"{slot} up")
    for name in ("USR1", "USR2"):
        master.send(signal.Signals[f"SIG{name}"])
        for slot in range(2):
            master.wait_for_line(f"{slot} {name.lower()}")
    master.send(signal.SIGWINCH)
    master.send(signal.SIGHUP)
    master.wait_for("signal_received", signal="HUP")
    assert master.stop()[0] == 0


def test_ttin_and_ttou_change_the_size_of_the_first_pool(start: Start) -> None:
    master = start("pools: {web: {command: [sleep, '1000']}, other: {command: [sleep, '1000']}}")
    master.wait_for("worker_started", pool="web", slot=0)
    master.wait_for("worker_started", pool="other", slot=0)
    master.send(signal.SIGTTIN)
    master.wait_for("worker_started", pool="web", slot=1)
    master.send(signal.SIGTTOU)
    master.wait_for("worker_exited", pool="web", slot=0, reason="scale_down")
    master.send(signal.SIGTTOU)
    master.wait_for("signal_received", signal="TTOU")
    master.wait_for("signal_received", signal="TTOU")
    assert len(master.children()) == 2  # never below one
    assert master.stop()[0] == 0


def test_the_termination_message_of_a_requested_stop(start: Start, tmp_path: Path) -> None:
    message = tmp_path / "termination"
    message.write_text("something from before")
    master = start(f"pools: {{web: {{command: [sleep, '1000']}}}}\nshutdown: {{termination_log: {message}}}")
    master.wait_for("worker_started")
    assert master.stop()[0] == 0
    told = json.loads(message.read_text())
    assert told["reason"] == "requested by SIGTERM"
    assert told["exit_code"] == 0


@PIDS
def test_a_master_within_a_master(start: Start, entrypoint: str, tmp_path: Path, *, pid1: bool) -> None:
    inner = tmp_path / "inner.yaml"
    inner.write_text("pools: {inside: {command: [sh, -c, 'echo $ENTRYPOINT_WORKER; exec sleep 1000'], workers: 2}}")
    master = start(f"pools: {{outer: {{command: [{entrypoint}, run, -c, {inner}]}}}}", pid1=pid1)
    master.wait_for_line("inside/1")
    master.wait_for("worker_started", pool="inside", slot=1)
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 2
    assert [e["exit_code"] for e in master.all("master_exiting")] == [0, 0]
    master.wait_for("worker_exited", pool="outer", code=0)
