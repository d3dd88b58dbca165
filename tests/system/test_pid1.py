"""The master as the one that every orphan comes to."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.observed import OBSERVER, Observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Start

# Makes COUNT orphans that end by themselves, a few at a time, then tells.
STORM = """
import os, sys
for _ in range({count}):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
print("stormed", flush=True)
"""

# A daemon by the book: two forks and a session of its own. It lives until its pipe is closed.
DAEMON = """
import os, sys, signal, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("daemon", os.getpid(), "parent", os.getppid(), flush=True)
        os.read(reader, 1)
        print("daemon again", os.getpid(), "parent", os.getppid(), flush=True)
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os._exit(0)
os.wait()
os.write(writer, b"x")
os.close(writer)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("pid1", [False, True])
@pytest.mark.parametrize("mode", ["pool", "init"])
def test_a_storm_of_orphans_leaves_no_zombie(
    start: Start, script: Callable[[str, str], str], mode: str, *, pid1: bool
) -> None:
    storm = script("storm.py", STORM.format(count=2000) + "import signal; signal.pause()\n")
    if mode == "pool":
        master = start(f"pools: {{web: {{command: [python3, {storm}]}}}}", pid1=pid1)
    else:
        master = start(args=["--init", "python3", storm], pid1=pid1)
    master.wait_for_line("stormed", timeout=30)
    master.until(lambda: len(master.children()) == 1)
    if mode == "init":
        assert master.stop()[0] == 143
        return
    assert master.stop()[0] == 0
    assert master.wait_for("master_exiting")["orphans_reaped"] >= 2000


@pytest.mark.parametrize("pid1", [False, True])
def test_a_daemon_becomes_the_masters_child_and_is_reaped(
    start: Start, script: Callable[[str, str], str], *, pid1: bool
) -> None:
    daemon = script("daemon.py", DAEMON)
    master = start(f"pools: {{web: {{command: [python3, {daemon}]}}}}", pid1=pid1)
    pid = master.pid
    parent = int(master.wait_for_line(r"daemon again \d+ parent (\d+)")[1])
    assert parent == (1 if pid1 else pid)
    master.until(lambda: len(master.children()) == 1)  # the daemon has ended: only the worker is left
    assert master.stop()[0] == 0


@pytest.mark.parametrize("pid1", [False, True])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 42", 42),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -INT $$", 130),
        ("kill -SEGV $$", 139),
    ],
)
def test_init_mode_exits_as_its_worker_did(start: Start, command: str, code: int, *, pid1: bool) -> None:
    for words in (["--", "sh", "-c", command], ["--init", "sh", "-c", command], ["sh", "-c", command]):
        master = start(args=words, pid1=pid1, env={"ENTRYPOINT_CONFIG": ""})
        assert master.wait() == code
        assert master.errors == ""
        assert master.said == []
        assert master.events == []


# Not to be caught, or a fault of the program itself, or not a message to pass on.
KEPT = {"KILL", "STOP", "SEGV", "BUS", "FPE", "ILL", "CHLD", "TTIN", "TTOU"}
FORWARDED = sorted(signal.valid_signals() - {getattr(signal, f"SIG{name}") for name in KEPT})
ECHO = f"""
import signal
numbers = {[int(n) for n in FORWARDED]}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
while True:
    got = signal.sigwait(numbers)
    print("got", int(got), flush=True)
    if got == {int(signal.SIGTERM)}:
        break
"""


@pytest.mark.parametrize("pid1", [False, True])
def test_init_mode_forwards_every_signal(start: Start, script: Callable[[str, str], str], *, pid1: bool) -> None:
    master = start(args=["--init", "python3", script("echo.py", ECHO)], pid1=pid1)
    master.wait_for_line("ready")
    for number in [n for n in FORWARDED if n != signal.SIGTERM] + [signal.SIGTERM]:
        master.send(number)
        master.wait_for_line(rf"^got {int(number)}$")
    assert master.wait() == 0


def test_init_mode_passes_environment_and_descriptors_through(start: Start) -> None:
    reader, writer = os.pipe()
    # The pid that LISTEN_PID must name is the worker's, which is the one that the shell is.
    show = 'echo "$LISTEN_FDS $NOTIFY_SOCKET $ENTRYPOINT_POOL"; test "$LISTEN_PID" = $$ && echo yes >/proc/self/fd/$FD'
    env = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "NOTIFY_SOCKET": "@x", "FD": str(writer), "ENTRYPOINT_POOL": "outer"}
    master = start(args=["--init", "sh", "-c", show], env=env, pass_fds=(writer,))
    assert master.wait() == 0
    os.close(writer)
    assert master.said == ["1 @x outer"]
    assert os.read(reader, 100) == b"yes\n"
    os.close(reader)


def test_init_mode_leaves_standard_input_to_its_worker(start: Start) -> None:
    reader, writer = os.pipe()
    master = start(args=["cat"], stdin=reader, env={"ENTRYPOINT_CONFIG": ""})
    os.close(reader)
    os.write(writer, b"through\n")
    os.close(writer)
    assert master.wait() == 0
    assert master.said == ["through"]


def test_workers_makes_a_pool_of_a_command(start: Start) -> None:
    master = start(args=["--workers", "3", "--", "sh", "-c", "echo $ENTRYPOINT_WORKER; exec sleep 1000"])
    for slot in range(3):
        master.wait_for_line(f"main/{slot}")
    assert master.stop()[0] == 0


def test_what_an_init_mode_worker_leaves_behind_is_ended(start: Start) -> None:
    master = start(args=["--init", "sh", "-c", "sleep 1000 & setsid sleep 1000 & exit 3"])
    assert master.wait() == 3  # and the fixture looks for survivors


# Images of systemd's kind name RTMIN+3 to be stopped by, those of httpd WINCH.
STOPSIGNALS = {"RTMIN+3": signal.SIGRTMIN + 3, "RTMAX": signal.SIGRTMAX, "PWR": signal.SIGPWR, "WINCH": signal.SIGWINCH}


def test_no_signal_to_pid_1_vanishes_unsaid(start: Start) -> None:
    master = start(OBSERVER + "pools: {web: {command: [sleep, '1000'], ready: {after: 0s}}}", pid1=True)
    observed = Observed(master)
    master.wait_for("worker_ready")
    for name, number in STOPSIGNALS.items():
        for _ in range(2):
            master.send(number)
            master.wait_for("signal_received", signal=name)
    observed.wait_for(2, "signals_received_total", signal="RTMIN+3")
    assert master.stop()[0] == 0
    said = master.all("signal_ignored", level="warning")
    assert [line["signal"] for line in said] == list(STOPSIGNALS)
    for name, line in zip(STOPSIGNALS, said, strict=True):
        assert f"signals: {{{name}: shutdown}}" in line["hint"]


def test_a_signal_that_the_image_names_stops_pid_1_once_it_is_mapped(start: Start) -> None:
    master = start("pools: {web: {command: [sleep, '1000']}}\nsignals: {37: shutdown, WINCH: shutdown}", pid1=True)
    master.wait_for("worker_started")
    assert master.stop(signal.SIGRTMIN + 3)[0] == 0
    assert not master.all("signal_ignored")


def test_the_state_of_the_master(start: Start) -> None:
    master = start("pools: {web: {command: [sleep, '1000']}}")
    master.wait_for("worker_started")
    pid = master.pid
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"^Threads:\s+1$", status, re.MULTILINE)
    assert re.search(r"^SigBlk:\s+0+$", status, re.MULTILINE)
    assert master.stop()[0] == 0
