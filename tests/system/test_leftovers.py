"""What a worker's main process leaves behind when it ends: who is told, when, and how long it has."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Master, Start

    Script = Callable[[str, str], str]

PIDS = pytest.mark.parametrize("pid1", [False, True])

# A program that has its child finish what it is at before it ends; the child ends when the pipe that it reads does.
PARENT = """
import os, signal, subprocess, sys
reader, writer = os.pipe()
child = subprocess.Popen(["sh", "-c", "echo child $$; read line; echo task done"], stdin=reader)
os.close(reader)
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
print("parent", os.getpid(), flush=True)
while not stopping:
    signal.pause()
print("parent asked", flush=True)
os.read(os.open(sys.argv[1], os.O_RDONLY), 1)
os.write(writer, b"go\\n")
print("task ended with", child.wait(), flush=True)
"""
# The same, but it does not listen, and neither does its child.
DEAF = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    print("child", os.getpid(), flush=True)
    signal.pause()
print("parent", os.getpid(), flush=True)
signal.pause()
"""
WITHOUT_A_SHELL = "[python3, {parent}, {gate}]"
BETWEEN = {
    "a list of commands": "[sh, -c, 'true && python3 {parent} {gate}']",
    "a shell in a shell": """[sh, -c, "true && sh -c 'true && python3 {parent} {gate}'"]""",
}


def with_parent(start: Start, script: Script, command: str, *, pid1: bool = False) -> tuple[Master, str]:
    """A master whose worker runs PARENT, and the pipe that lets it finish."""
    parent = script("parent.py", PARENT)
    gate = parent.replace("parent.py", "gate")
    os.mkfifo(gate)
    command = command.format(parent=parent, gate=gate)
    master = start(f"pools: {{jobs: {{command: {command}, ready: {{after: 0s}}, stop: {{timeout: 20s}}}}}}", pid1=pid1)
    master.wait_for_line(r"^child \d+")
    master.wait_for_line(r"^parent \d+")
    return master, gate


def let_go(gate: str) -> None:
    fd = os.open(gate, os.O_WRONLY)
    os.write(fd, b"x")
    os.close(fd)


@PIDS
@pytest.mark.parametrize("command", [WITHOUT_A_SHELL, *BETWEEN.values()], ids=["no shell", *BETWEEN])
def test_a_program_behind_a_shell_finishes_what_its_children_are_at(
    start: Start, script: Script, command: str, *, pid1: bool
) -> None:
    master, gate = with_parent(start, script, command, pid1=pid1)
    master.send(signal.SIGTERM)
    master.wait_for_line("^parent asked$")
    if command != WITHOUT_A_SHELL:
        told = master.wait_for("worker_exited")
        assert told["left_processes"] is True
        assert "exec" in told["hint"]
    let_go(gate)
    assert master.wait() == 0
    assert "task done" in master.said
    assert "task ended with 0" in master.said
    assert master.said.count("parent asked") == 1
    assert not master.all("worker_killed")


def test_what_is_left_of_a_worker_that_is_replaced_has_the_time_of_its_stop(start: Start, script: Script) -> None:
    master, gate = with_parent(start, script, BETWEEN["a list of commands"])
    os.kill(master.wait_for("worker_started")["pid"], signal.SIGSTOP)  # it gets its signal all the same
    master.send(signal.SIGHUP)
    master.wait_for_line("^parent asked$")
    let_go(gate)
    master.wait_for_line("^task ended with 0$")
    assert master.stop(signal.SIGQUIT)[0] in {0, 137}


@PIDS
def test_a_deaf_program_behind_a_shell_is_killed_with_its_children_at_the_stop_deadline(
    start: Start, script: Script, *, pid1: bool
) -> None:
    deaf = script("deaf.py", DEAF)
    command = f"[sh, -c, 'true && python3 {deaf}']"
    master = start(f"pools: {{jobs: {{command: {command}, stop: {{timeout: 2s}}}}}}", pid1=pid1)
    master.wait_for_line(r"^child \d+")
    master.wait_for_line(r"^parent \d+")
    everything = list(master.descendants())
    code, seconds = master.stop()
    assert code == 0
    assert seconds >= 2
    assert not [pid for pid in everything if master.alive(pid)]


def test_a_crash_of_the_main_process_is_told_to_its_children_only(start: Start, script: Script) -> None:
    told = """trap "echo {0} told" TERM; echo {0} up"""
    child = f"sh -c '{told.format('child')}; while :; do sleep 0.05; done' &"
    parent = script("parent.sh", f"{child}\n{told.format('parent')}\nwhile :; do sleep 0.05; done\n")
    master = start(f"pools: {{web: {{command: [sh, -c, 'sh {parent} & exec sleep 1000'], ready: {{after: 0s}}}}}}")
    master.wait_for_line("^child up$")
    master.wait_for_line("^parent up$")
    os.kill(master.wait_for("worker_started")["pid"], signal.SIGKILL)
    left = master.wait_for("worker_exited")
    assert (left["left_processes"], "hint" in left) == (True, False)
    master.wait_for_line("^parent told$")
    master.wait_for("worker_started")  # a second later all of it has been killed
    assert "child told" not in master.said
    assert master.stop(signal.SIGQUIT)[0] in {0, 137}


# Its child is in the group of the worker; it has left that.
STRAY = """
import os, signal
reader, writer = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True) or os._exit(0))
        os.write(writer, b"x")
        while True:
            signal.pause()
    os.read(reader, 1)
    os.setsid()
    print("strayed", flush=True)
    os.wait()
    signal.pause()
signal.pause()
"""


def test_what_has_a_parent_outside_of_the_group_is_told_too(start: Start, script: Script) -> None:
    master = start(f"pools: {{web: {{command: [python3, {script('stray.py', STRAY)}]}}}}")
    master.wait_for_line("^strayed$")
    os.kill(master.wait_for("worker_started")["pid"], signal.SIGKILL)
    master.wait_for_line("^told$")
    assert master.stop(signal.SIGQUIT)[0] in {0, 137}


# -- daemons -------------------------------------------------------------------------------------------------

FOREGROUND = "ended with 0 and left processes: keep it in the foreground"
BY_THE_BOOK = """
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.pause()
    os._exit(0)
os._exit(0)
"""


@PIDS
@pytest.mark.parametrize("kind", ["redis", "by the book"])
def test_a_daemon_is_told_to_stay_in_the_foreground(
    start: Start, script: Script, open_path: Path, kind: str, *, pid1: bool
) -> None:
    options = f"--port, '0', --unixsocket, {open_path}/redis, --save, '', --pidfile, {open_path}/pid"
    redis = f"[redis-server, --daemonize, 'yes', {options}]"
    command = redis if kind == "redis" else f"[python3, {script('daemon.py', BY_THE_BOOK)}]"
    restart = "{give_up_after: 2, backoff: {initial: 10ms}}"
    master = start(f"pools: {{cache: {{command: {command}, restart: {restart}}}}}", pid1=pid1)
    assert master.wait() == 1
    for line in master.all("worker_exited"):
        assert (line["code"], line["level"], line["left_processes"]) == (0, "warning", True)
        assert line["error"] == FOREGROUND
    assert master.wait_for("giving_up")["error"] == f"cache/0 {FOREGROUND}"


def test_a_worker_that_ends_with_0_is_not_taken_for_the_one_that_left_an_older_daemon(start: Start) -> None:
    master = start(
        """
        init: [{name: daemon, command: [sh, -c, 'setsid sleep 1000 & sleep 0.1']}]
        pools: {quick: {command: ['true'], restart: {give_up_after: 2, backoff: {initial: 10ms}}}}
        """
    )
    assert master.wait() == 1
    lines = master.all("worker_exited", pool="quick")
    assert len(lines) == 2
    assert not [line for line in lines if "error" in line or "left_processes" in line]
    assert master.wait_for("sweep")["processes"] == 1


# -- what is stopped -----------------------------------------------------------------------------------------

OBEDIENT = """[sh, -c, 'trap "echo bye; exit 0" TERM; echo up; while :; do sleep 0.05; done']"""


def freeze(master: Master, pid: int) -> None:
    """Stop the process, as a debugger does."""
    os.kill(pid, signal.SIGSTOP)
    master.until(lambda: master.status_of(pid, "State").startswith("T"))


@PIDS
def test_a_stopped_worker_sees_its_stop_signal(start: Start, *, pid1: bool) -> None:
    master = start(f"pools: {{web: {{command: {OBEDIENT}}}}}", pid1=pid1)
    master.wait_for_line("up")
    worker = master.worker("sh")
    freeze(master, worker)
    assert master.stop()[0] == 0
    assert "bye" in master.said


def test_a_stopped_worker_sees_its_abort_signal(start: Start, script: Script) -> None:
    text = """
import os, signal, socket
def aborted(*_):
    print("aborted", flush=True)
    os._exit(3)
signal.signal(signal.SIGABRT, aborted)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"READY=1", "\\0" + os.environ["NOTIFY_SOCKET"][1:])
os.kill(os.getpid(), signal.SIGSTOP)
while True:
    signal.pause()
"""
    more = "ready: {when: notify}, heartbeat: {timeout: 1s}"
    master = start(f"pools: {{web: {{command: [python3, {script('worker.py', text)}], {more}}}}}")
    master.wait_for("worker_hung")
    master.wait_for_line("^aborted$")
    assert master.wait_for("worker_exited")["code"] == 3
    master.stop(signal.SIGQUIT)


def test_what_is_stopped_and_left_behind_sees_its_term(start: Start) -> None:
    bye = """sh -c 'trap "echo {0} bye; exit 0" TERM; echo {0} $$; while :; do sleep 0.05; done'"""
    lines = [f"{bye.format('member')} &", f"setsid {bye.format('stray')} &", "exec sleep 1000"]
    master = start("pools:\n  web:\n    command:\n      - sh\n      - -c\n      - |\n"
                   + "".join(f"        {line}\n" for line in lines))  # fmt: skip
    for name in ("member", "stray"):
        pid = int(master.wait_for_line(rf"^{name} (\d+)$")[1])
        freeze(master, pid)
    assert master.stop()[0] == 0
    assert "member bye" in master.said
    assert "stray bye" in master.said


def test_a_signal_that_is_passed_on_leaves_a_stopped_worker_stopped(start: Start) -> None:
    command = """[sh, -c, 'trap "echo usr1" USR1; echo up; while :; do sleep 0.05; done']"""
    master = start(f"pools: {{web: {{command: {command}}}}}")
    master.wait_for_line("up")
    worker = master.wait_for("worker_started")["pid"]
    freeze(master, worker)
    master.send(signal.SIGUSR1)
    master.until(lambda: int(master.status_of(worker, "ShdPnd"), 16))
    assert master.status_of(worker, "State").startswith("T")
    master.stop(signal.SIGQUIT)
