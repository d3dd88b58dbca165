"""Workers that fall silent, and masters that did not listen."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.system.live import Live

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Event, Master, Start

    Script = Callable[[str, str], str]

MOUNTS = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")

# Beats until USR1 makes it hang. With a folder to remember it by, only its first life ever hangs.
BEATER = """
import faulthandler, os, select, signal, socket, sys
slot = os.environ["ENTRYPOINT_SLOT"]
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect("\\0" + os.environ["NOTIFY_SOCKET"][1:])
def say(text):
    sock.send(text.encode())
def beat_until(signals):
    while not signals & signal.sigpending():
        select.select([], [], [], 0.2)  # not sigtimedwait: when it is stopped for longer, it returns anything
        say("WATCHDOG=1")
def hang_for_ever():
    while True:
        signal.pause()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
"""

SIMPLE = """
faulthandler.enable()
say("READY=1")
beat_until({signal.SIGUSR1})
hang_for_ever()
"""


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:
    return Live(start, entrypoint, tmp_path)


def pool(*words: str, timeout: str = "1s", more: str = "") -> str:
    return (
        f"{{command: [{', '.join(words)}], ready: {{when: notify}}, restart: {{min_uptime: 0s}}, "
        f"heartbeat: {{timeout: {timeout}, abort_grace: 10s}}{more}}}"
    )


def seconds_between(first: Event, second: Event) -> float:
    times = [datetime.fromisoformat(e["timestamp"]) for e in (first, second)]
    return (times[1] - times[0]).total_seconds()


def no_one_hangs(master: Master, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        master.wait_for("worker_hung", timeout=seconds)


# -- one that hangs ------------------------------------------------------------------------------------------


def test_a_hung_worker_says_where_and_is_replaced(live: Live, script: Script) -> None:
    beater = script("beater.py", BEATER + SIMPLE)
    web = pool("python3", beater, timeout="2s", more=", workers: 2")
    master = live.start(f"pools: {{web: {web}}}", pid1=True)
    ready = {slot: master.wait_for("worker_ready", slot=slot) for slot in range(2)}
    assert {w["heartbeat_age_seconds"] < 5 for w in live.pool()["workers"]} == {True}
    no_one_hangs(master, 2.5)  # they beat
    victim = next(p for p in master.children() if master.status_of(p, "NSpid").split()[-1] == str(ready[1]["pid"]))
    os.kill(victim, signal.SIGUSR1)
    hung = master.wait_for("worker_hung", pool="web", level="error")
    assert (hung["slot"], hung["pid"], hung["reason"], hung["signal"]) == (
        1,
        ready[1]["pid"],
        "heartbeat_timeout",
        "ABRT",
    )
    ended = master.wait_for("worker_exited", slot=1)
    assert (ended["reason"], ended["signal"]) == ("heartbeat_timeout", "ABRT")
    assert "in hang_for_ever" in master.errors
    again = master.wait_for("worker_ready", slot=1)
    assert again["pid"] != ready[1]["pid"]
    assert "hung: heartbeat_timeout" in live.pool()["last_error"]
    assert master.stop()[0] == 0
    assert not master.all("worker_killed")
    assert len(master.all("worker_hung")) == 1


# Each takes its time to tell where it hangs; the last one does not tell and does not go.
SLOW_DUMP = """
def abort(signum, frame):
    print(slot, "dumps", flush=True)
    signal.sigtimedwait({signal.SIGUSR2}, 1.0)
    print(slot, "has dumped", flush=True)
    os._exit(3)
signal.signal(signal.SIGABRT, signal.SIG_IGN if slot == "3" else abort)
try:
    os.mkdir(os.path.join(sys.argv[1], "life." + slot))
    signal.sigtimedwait({signal.SIGUSR2}, int(slot) * 0.3)
    say("READY=1")
    hang_for_ever()
except FileExistsError:
    say("READY=1")
    print(slot, "again", flush=True)
    beat_until(set())
"""


def test_each_hung_worker_has_a_deadline_and_all_of_its_grace_for_itself(
    start: Start, script: Script, tmp_path: Path
) -> None:
    dump = script("dump.py", BEATER + SLOW_DUMP)
    master = start(
        f"""
        pools:
          web:
            command: [python3, {dump}, {tmp_path}]
            workers: 4
            ready: {{when: notify}}
            heartbeat: {{timeout: 1s, abort_grace: 1600ms}}
            restart: {{min_uptime: 0s}}
        """
    )
    for slot in range(4):
        ready, hung = master.wait_for("worker_ready", slot=slot), master.wait_for("worker_hung", slot=slot)
        assert seconds_between(ready, hung) >= 0.95
    for slot in range(3):
        ended = master.wait_for("worker_exited", slot=slot)
        assert (ended["reason"], ended["code"]) == ("heartbeat_timeout", 3)
    killed = master.wait_for("worker_killed", slot=3, reason="heartbeat_timeout")
    assert seconds_between(master.all("worker_hung", slot=3)[0], killed) >= 1.55
    ended = master.wait_for("worker_exited", slot=3)
    assert (ended["reason"], ended["signal"]) == ("heartbeat_timeout", "KILL")
    for slot in range(4):
        master.wait_for_line(f"{slot} again")
    assert [f"{slot} has dumped" in master.said for slot in range(4)] == [True, True, True, False]
    assert master.stop()[0] == 0
    assert len(master.all("worker_killed")) == 1


def test_a_worker_can_say_itself_that_it_hangs(start: Start, script: Script) -> None:
    text = (
        "faulthandler.enable()\nsay('READY=1')\n"
        "if not os.path.exists(sys.argv[0] + '.hung'):\n"
        "    open(sys.argv[0] + '.hung', 'w')\n    say('WATCHDOG=trigger')\nhang_for_ever()\n"
    )
    trigger = script("trigger.py", BEATER + text)
    master = start(f"pools: {{web: {pool('python3', trigger, timeout='1h')}}}")
    hung = master.wait_for("worker_hung", reason="heartbeat_timeout")
    master.wait_for("worker_exited", pid=hung["pid"], reason="heartbeat_timeout", signal="ABRT")
    assert f'File "{trigger}", line' in master.errors
    master.wait_for("worker_ready")
    master.wait_for("worker_ready")
    assert master.stop()[0] == 0


def test_a_stuck_import_is_ended_by_the_boot_timeout_and_says_where(
    start: Start, script: Script, tmp_path: Path
) -> None:
    (tmp_path / "stuck.py").write_text(
        "import os, signal\ntry:\n    os.mkdir('stuck')\n    signal.pause()\nexcept FileExistsError:\n    pass\n"
    )
    text = f"import sys\nsys.path.insert(0, '{tmp_path}')\nimport stuck\n" + BEATER + SIMPLE
    app = script("app.py", text)
    more = ", boot_timeout: 2s"
    master = start(f"pools: {{web: {pool('python3', '-X', 'faulthandler', app, timeout='5s', more=more)}}}")
    hung = master.wait_for("worker_hung", level="error")
    assert (hung["reason"], hung["signal"], hung["timeout"]) == ("boot_timeout", "ABRT", 2)
    ended = master.wait_for("worker_exited", pid=hung["pid"])
    assert (ended["reason"], ended["signal"]) == ("boot_timeout", "ABRT")
    assert "stuck.py" in master.errors
    master.wait_for("worker_ready")
    assert master.stop()[0] == 0


def test_a_pool_whose_workers_never_get_ready_gives_up(start: Start) -> None:
    master = start(
        """
        pools:
          web:
            command: [sleep, '1000']
            ready: {when: notify}
            boot_timeout: 200ms
            restart: {give_up_after: 2}
        """
    )
    assert master.wait() == 128 + signal.SIGABRT
    assert [e["reason"] for e in master.all("worker_exited")] == ["boot_timeout"] * 2


def test_another_abort_signal(start: Start, script: Script) -> None:
    text = "#!/bin/sh\ntrap 'echo dumped; exit 4' USR2\nsystemd-notify --ready\n"
    trap = script("trap", text + "while :; do sleep 0.05; done\n")
    pool = f"command: [{trap}], ready: {{when: notify}}, heartbeat: {{timeout: 1s, abort_signal: USR2}}"
    master = start(f"pools: {{web: {{{pool}}}}}")
    assert master.wait_for("worker_hung")["signal"] == "USR2"
    assert master.wait_for("worker_exited", reason="heartbeat_timeout")["code"] == 4
    assert master.said == ["dumped"]
    assert master.stop()[0] == 0


def test_a_term_while_a_hung_worker_dumps(start: Start, script: Script) -> None:
    """It has the time of a stop, no longer, and gets no stop signal on top."""
    text = "#!/bin/sh\ntrap 'echo term' TERM\ntrap 'echo dumps' ABRT\nsystemd-notify --ready\n"
    trap = script("trap", text + "while :; do sleep 0.05; done\n")
    master = start(f"pools: {{web: {pool(trap, more=', stop: {timeout: 500ms}')}}}")
    master.wait_for_line("dumps")
    _, seconds = master.stop()
    assert seconds < 5  # of the 10 s of its abort_grace
    assert master.said == ["dumps"]


# -- those that do not hang ----------------------------------------------------------------------------------

SHELL = """#!/bin/sh
trap 'exec sleep 1000' USR1
systemd-notify --ready
while :; do
    systemd-notify WATCHDOG=1
    sleep 0.1
done
"""


def known_as(master: Master, pid: int) -> list[int]:
    """The descendants that have this pid in the innermost namespace; what the script runs comes and goes meanwhile."""
    found = []
    for each in master.descendants():
        with suppress(FileNotFoundError, ProcessLookupError):
            if master.status_of(each, "NSpid").endswith(f"\t{pid}"):
                found.append(each)
    return found


def test_a_shell_script_beats_although_nothing_can_be_written(start: Start, script: Script) -> None:
    shell = script("shell", SHELL)
    master = start(
        f"pools: {{web: {pool(shell, timeout='2s', more=', cwd: /')}}}\ncontrol: {{socket: /nowhere/c.sock}}",
        wrap=(
            *MOUNTS,
            "sh",
            "-c",
            'mount -t proc proc /proc && for d in / /tmp /run /dev/shm; do mount -o bind,ro $d $d; done; exec "$@"',
            "sh",
        ),
        env={"TMPDIR": "/nowhere"},
        cwd="/",
    )
    pid = master.wait_for("worker_ready")["pid"]
    no_one_hangs(master, 2.5)
    inner = master.until(lambda: known_as(master, 1))[0]
    (worker,) = known_as(master, pid)
    os.kill(worker, signal.SIGUSR1)
    master.wait_for("worker_hung", pid=pid)
    os.kill(inner, signal.SIGTERM)
    assert master.wait() == 0


def test_a_master_that_was_stopped_blames_nobody_and_finds_the_hung_afterwards(start: Start, script: Script) -> None:
    beater = script("beater.py", BEATER + SIMPLE)
    web = pool("python3", beater, timeout="1500ms", more=", workers: 3, boot_timeout: 4s")
    config = f"pools: {{web: {web}}}\ncontrol: {{enabled: false}}"
    masters = [start(config), start(config, pid1=True)]
    workers = []
    for master in masters:
        for _ in range(3):
            master.wait_for("worker_ready")
        workers.append({int(master.status_of(p, "NSpid").split()[-1]): p for p in master.children()})
    frozen = list(workers[0].values())  # as if the whole container had been: nobody did beat either
    for pid in (*frozen, *(m.pid for m in masters)):
        os.kill(pid, signal.SIGSTOP)
    select.select([], [], [], 4.6)  # the time itself is what is looked at
    for pid in (*(m.pid for m in masters), *frozen):
        os.kill(pid, signal.SIGCONT)
    for master in masters:
        assert master.wait_for("master_stalled", level="warning")["seconds"] > 2
        no_one_hangs(master, 1.8 if master is masters[0] else 0)
    for known in workers:
        os.kill(next(iter(known.values())), signal.SIGUSR1)
    for master, known in zip(masters, workers, strict=True):
        pid = next(iter(known))
        master.wait_for("worker_hung", pid=pid)
        master.wait_for("worker_exited", pid=pid, reason="heartbeat_timeout")
        assert master.stop()[0] == 0
        assert len(master.all("worker_hung")) == 1


# -- at rest -------------------------------------------------------------------------------------------------


def test_only_beats_wake_an_idle_master(live: Live, script: Script) -> None:
    """No clock ticks beside heartbeats that are due in half a minute, nor beside a probe that succeeds."""
    text = "#!/bin/sh\ntrap 'systemd-notify WATCHDOG=1; echo beaten' USR1\nsystemd-notify --ready\n"
    quiet_one = script("quiet", text + "while :; do sleep 1000 & wait $!; kill $!; done\n")
    master = live.start(
        f"""
        pools:
          web: {pool(quiet_one, timeout="30s", more=", workers: 20")}
          seen:
            command: [sleep, '1000']
            liveness: {{exec: ['true'], period: 100ms}}
            ready: {{after: 0s}}
            restart: {{min_uptime: 0s}}
        """
    )
    for slot in range(20):
        master.wait_for("worker_ready", pool="web", slot=slot)
    pid = master.all("worker_ready", pool="web", slot=0)[0]["pid"]

    def switches() -> int:
        return int(master.status_of(master.pid, "voluntary_ctxt_switches"))

    def quiet(seconds: float) -> bool:
        before = switches()
        select.select([], [], [], seconds)  # the time itself is what is looked at
        return switches() == before

    master.until(lambda: quiet(0.2))
    assert quiet(1.5)
    before = switches()
    os.kill(pid, signal.SIGUSR1)
    master.wait_for_line("beaten")
    master.until(lambda: quiet(0.2))
    assert 1 <= switches() - before <= 10
    assert master.stop()[0] == 0
