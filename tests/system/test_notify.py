"""Workers that speak for themselves, by systemd's notification protocol."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.live import Live

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Master, Start

    Script = Callable[[str, str], str]

NOBODY = 65534

SAY = """
import os, signal, socket, subprocess, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect("\\0" + os.environ["NOTIFY_SOCKET"][1:])
def say(*lines):
    sock.send("\\n".join(lines).encode())
"""

# Says what it is told, and stays; tells when it is asked to stop.
SPEAKER = """
def stop(signum, frame):
    os.write(1, b"asked to stop\\n")  # print cannot be interrupted by itself
    sys.exit()
signal.signal(signal.SIGTERM, stop)
say(*sys.argv[1:])
os.write(1, b"said\\n")
while True:
    signal.pause()
"""


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    if not shutil.which("systemd-notify"):
        pytest.fail("cannot find systemd-notify: install the package systemd, or run scripts/setup-test-machine")


@pytest.fixture
def speaker(script: Script) -> str:
    return script("speaker.py", SAY + SPEAKER)


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:
    return Live(start, entrypoint, tmp_path)


@pytest.fixture
def gate(tmp_path: Path) -> str:
    """A fifo that nobody gets through who reads it before `let_through`."""
    os.mkfifo(tmp_path / "gate", 0o666)
    os.chmod(tmp_path / "gate", 0o666)
    return str(tmp_path / "gate")


def told(live: Live, pool: str = "web") -> tuple[str, str]:
    """The state and the status of a pool's only worker."""
    (worker,) = live.pool(pool)["workers"]
    return worker["state"], worker["status"]


def let_through(master: Master, gate: str) -> None:
    def opened() -> bool:
        try:
            os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody is there yet
            return False
        return True

    master.until(opened)


def seen_from_here(master: Master, pid: int) -> int:
    """The process that the master knows by that number."""
    found: list[int] = master.until(
        lambda: [p for p in master.children() if master.status_of(p, "NSpid").split()[-1] == str(pid)]
    )
    return found[0]


def places(master: Master, first: tuple[str, dict[str, Any]], second: tuple[str, dict[str, Any]]) -> list[int]:
    """Where in the log two events are."""
    events = master.events
    return [
        next(n for n, e in enumerate(events) if e["event"] == event and fields.items() <= e.items())
        for event, fields in (first, second)
    ]


# -- ready ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "user", "pid1"),
    [("", "root", True), ("", "nobody", False), ("--no-block", "root", False), ("--no-block", "nobody", True)],
)
def test_a_shell_script_is_ready_when_it_says_so(
    live: Live, script: Script, gate: str, how: str, user: str, *, pid1: bool
) -> None:
    said = f'systemd-notify {how} --status="all up" --ready'
    shell = script("shell", f"#!/bin/sh\necho here\nread x <{gate}\n{said}\necho passed\nexec sleep 1000\n")
    command = f"command: [{shell}], user: {user}, cwd: /"
    master = live.start(f"pools: {{web: {{{command}, ready: {{when: notify}}}}}}", pid1=pid1)
    master.wait_for_line("here")
    master.wait_for("worker_started")
    assert told(live) == ("starting", "")
    let_through(master, gate)
    master.wait_for("worker_ready", slot=0)
    master.wait_for("pool_ready")
    master.wait_for_line("passed")  # without --no-block it waits until everything was read
    assert told(live) == ("ready", "all up")
    assert master.stop()[0] == 0
    assert not master.all("message_refused")


# Who says it: the worker, a child of it, or a grandchild whose parent has ended, so that the master is its parent now.
FAMILY = """
import os, sdnotify, signal, sys
def ready():
    sdnotify.SystemdNotifier(debug=True).notify("READY=1\\nSTATUS=said by " + sys.argv[1])
def stay():
    print(sys.argv[1], os.getpid(), "below", os.getppid(), flush=True)
    while True:
        signal.pause()
if sys.argv[1] == "worker":
    ready()
    stay()
reader, writer = os.pipe()
if os.fork() == 0:
    middle = os.getpid()
    if sys.argv[1] == "child":
        ready()
        stay()
    if os.fork() == 0:
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        while os.getppid() == middle:
            pass
        ready()
        stay()
    os._exit(0)
os.close(reader)
if sys.argv[1] == "grandchild":
    os.wait()
os.close(writer)
while True:
    signal.pause()
"""


@pytest.mark.parametrize(
    ("who", "pid1"), [("worker", False), ("child", True), ("grandchild", True), ("grandchild", False)]
)
def test_sdnotify_speaks_for_the_worker_wherever_below_it(live: Live, script: Script, who: str, *, pid1: bool) -> None:
    family = script("family.py", FAMILY)
    command = f"command: [python3, {family}, {who}]"
    master = live.start(f"pools: {{web: {{{command}, ready: {{when: notify}}}}}}", pid1=pid1)
    said = master.wait_for_line(r"(\d+) below (\d+)")
    worker = master.wait_for("worker_ready", slot=0)["pid"]
    me = 1 if pid1 else master.pid
    assert {"worker": int(said[1]) == worker, "child": int(said[2]) == worker, "grandchild": int(said[2]) == me}[who]
    assert told(live) == ("ready", f"said by {who}")
    assert master.stop()[0] == 0


def test_everything_that_a_worker_said_before_its_end_is_heard_before_that(start: Start, script: Script) -> None:
    last = script("last", "#!/bin/sh\nsystemd-notify --no-block --ready\nexit 0\n")
    master = start(
        f"pools: {{web: {{command: [{last}], workers: 6, ready: {{when: notify}}, restart: {{policy: never}}}}}}"
    )
    assert master.wait() == 0
    for slot in range(6):
        ready, exited = places(master, ("worker_ready", {"slot": slot}), ("worker_exited", {"slot": slot}))
        assert ready < exited
    assert {e["reason"] for e in master.all("worker_exited")} == {"completed"}


def test_each_life_has_an_address_of_its_own(start: Start, script: Script) -> None:
    show = script("show", '#!/bin/sh\necho "at $ENTRYPOINT_SLOT $NOTIFY_SOCKET"\nexec sleep 1000\n')
    master = start(
        f"pools: {{web: {{command: [{show}], workers: 2, ready: {{after: 0s}}, restart: {{min_uptime: 0s}}}}}}"
    )
    lives = [master.wait_for_line(f"at {slot} (@.+)")[1] for slot in range(2)]
    pid = master.wait_for("worker_started", slot=1)["pid"]
    os.kill(pid, signal.SIGKILL)
    master.wait_for("worker_exited", slot=1)
    master.wait_for("worker_ready", slot=1)
    lives.append(master.wait_for_line(f"at 1 (?!{lives[1]}$)(@.+)")[1])
    assert len(set(lives)) == 3
    # The address of the life that is over is nobody's.
    with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + lives[1][1:])
    assert master.stop()[0] == 0


# -- who may not speak ---------------------------------------------------------------------------------------

STRANGER = SAY + "say('READY=1', 'STATUS=from a stranger', 'WATCHDOG=trigger'); print('said', flush=True)\n"


def stranger(address: str, uid: int, *, stays: bool) -> subprocess.Popen[bytes]:
    """A process that is none of the master's and has spoken to the address."""
    code = STRANGER + ("sys.stdin.read()" if stays else "")
    process = subprocess.Popen(
        ["/usr/bin/python3", "-I", "-S", "-c", code],
        env={"NOTIFY_SOCKET": address},
        user=uid,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"said\n"
    if not stays:
        process.wait()
    return process


@pytest.mark.parametrize(
    ("uid", "stays", "pid1"),
    [(0, True, False), (0, True, True), (1, True, True), (NOBODY, True, False), (0, False, False), (1, False, True)],
)
def test_a_stranger_is_refused(live: Live, script: Script, gate: str, uid: int, *, stays: bool, pid1: bool) -> None:
    """Whoever it is, the worker's own user and root included; of those that are gone only the user is known."""
    text = f'#!/bin/sh\necho "at $NOTIFY_SOCKET"\nread x <{gate}\nsystemd-notify --ready\nexec sleep 1000\n'
    command = f"command: [{script('shell', text)}], user: nobody, cwd: /"
    master = live.start(f"pools: {{web: {{{command}, ready: {{when: notify}}}}}}", pid1=pid1)
    address = master.wait_for_line("at (@.+)")[1]
    master.wait_for("worker_started")
    if not stays:  # and is gone before anybody can look
        master.send(signal.SIGSTOP)
    process = stranger(address, uid, stays=stays)
    if not stays:
        master.send(signal.SIGCONT)
    refused = master.wait_for("message_refused", pool="web", slot=0, level="warning")
    assert "cannot accept a message" in refused["error"]
    assert told(live) == ("starting", "")
    let_through(master, gate)
    master.wait_for("worker_ready")
    process.communicate()
    assert master.stop()[0] == 0
    assert not master.all("worker_hung")


def test_a_worker_does_not_speak_for_another(start: Start, script: Script, tmp_path: Path) -> None:
    """Not even one of the same pool and the same user."""
    text = f"""#!/bin/sh
echo "$NOTIFY_SOCKET" >{tmp_path}/at.$ENTRYPOINT_SLOT
if [ "$ENTRYPOINT_SLOT" = 1 ]; then
    while ! [ -s {tmp_path}/at.0 ]; do sleep 0.02; done
    NOTIFY_SOCKET=$(cat {tmp_path}/at.0) systemd-notify --ready
    systemd-notify --ready
fi
exec sleep 1000
"""
    master = start(f"pools: {{web: {{command: [{script('shell', text)}], workers: 2, ready: {{when: notify}}}}}}")
    master.wait_for("message_refused", slot=0)
    master.wait_for("worker_ready", slot=1)
    assert master.stop()[0] == 0
    assert not master.all("worker_ready", slot=0)


# -- what else can be said -----------------------------------------------------------------------------------


def test_another_main_process_is_ignored_with_a_warning(start: Start, speaker: str) -> None:
    command = f"[python3, {speaker}, MAINPID=1, READY=1, UNKNOWN=1, RELOADING=1, BARRIER=1]"
    master = start(f"pools: {{web: {{command: {command}, ready: {{when: notify}}}}}}")
    pid = master.wait_for("worker_started")["pid"]
    master.wait_for("main_pid_ignored", level="warning", pool="web", slot=0, pid=pid)
    master.wait_for("worker_ready", pid=pid)
    assert master.stop()[0] == 0
    master.wait_for("worker_exited", pid=pid, reason="shutdown")


def test_a_worker_is_told_how_often_to_beat_and_that_it_is_meant(start: Start, script: Script) -> None:
    show = script("show", '#!/bin/sh\necho "$ENTRYPOINT_POOL $$ ${WATCHDOG_USEC-} ${WATCHDOG_PID-}"\nexec sleep 99\n')
    master = start(
        f"""
        pools:
          beats: {{command: [{show}], user: nobody, cwd: /, heartbeat: {{timeout: 2500ms}}}}
          silent: {{command: [{show}]}}
        """,
        env={"WATCHDOG_USEC": "1", "WATCHDOG_PID": "2"},
    )
    pid = master.wait_for("worker_started", pool="beats")["pid"]
    assert master.wait_for_line("beats (.*)")[1] == f"{pid} 2500000 {pid}"
    pid = master.wait_for("worker_started", pool="silent")["pid"]
    assert master.wait_for_line("silent (.*)")[1] == f"{pid}  "
    assert master.stop()[0] == 0


LEAVER = """
signal.signal(signal.SIGTERM, lambda *_: print("asked to stop", flush=True))
signal.signal(signal.SIGABRT, lambda *_: print("aborted", flush=True))
say("READY=1")
say("STOPPING=1", "STATUS=on my way", *sys.argv[2:])
open(sys.argv[1]).read()
print("gone", flush=True)
"""


def test_a_worker_that_says_it_stops_owes_no_beat_and_is_replaced_when_it_is_gone(
    live: Live, script: Script, gate: str
) -> None:
    leaver = script("leaver.py", SAY + LEAVER)
    command = f"command: [python3, {leaver}, {gate}, EXTEND_TIMEOUT_USEC=30000000], stop: {{timeout: 300ms}}"
    pool = f"{command}, ready: {{when: notify}}, heartbeat: {{timeout: 1s}}"
    master = live.start(f"pools: {{web: {{{pool}, restart: {{min_uptime: 0s}}}}}}")
    first = master.wait_for("worker_stopping", reason="its own decision")
    with pytest.raises(TimeoutError):
        master.wait_for("worker_hung", timeout=1.5)
    assert told(live)[1] == "on my way"
    assert len(master.all("worker_started")) == 1
    let_through(master, gate)
    assert master.wait_for("worker_exited")["reason"] == "completed"
    master.wait_for("worker_stopping")
    again = master.all("worker_started")[1]
    assert again["slot"] == first["slot"]
    gone, replaced = places(master, ("worker_exited", {}), ("worker_started", {"pid": again["pid"]}))
    assert gone < replaced
    # Nor does it get a stop signal when everything stops.
    master.send(signal.SIGTERM)
    master.wait_for("shutdown")
    let_through(master, gate)
    assert master.wait() == 0
    assert master.said == ["gone", "gone"]


def test_a_worker_that_says_it_stops_and_does_not_is_killed_at_the_stop_timeout(
    start: Start, script: Script, gate: str
) -> None:
    leaver = script("leaver.py", SAY + LEAVER)
    pool = f"command: [python3, {leaver}, {gate}], ready: {{when: notify}}, stop: {{timeout: 300ms}}"
    master = start(f"pools: {{web: {{{pool}, restart: {{min_uptime: 0s}}}}}}")
    pid = master.wait_for("worker_started")["pid"]
    master.wait_for("worker_killed", pid=pid, reason="stop deadline")
    master.wait_for("worker_exited", pid=pid, signal="KILL")
    master.wait_for("worker_started")
    assert master.stop()[0] in (0, 137)  # the second is on its way out as well


# Asks for more time to boot than it has, and for more time to stop; USR1 tells it to go on.
PATIENT = """
signals = {signal.SIGTERM, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
more = "EXTEND_TIMEOUT_USEC=30000000"
say(more)
if sys.argv[1] == "slow":
    signal.sigwait(signals)
say("READY=1")
while signal.sigwait(signals) == signal.SIGTERM:
    say(more)
"""


def test_more_time_to_boot_and_to_stop_for_a_worker_that_asks(start: Start, script: Script) -> None:
    patient = script("patient.py", SAY + PATIENT)
    pool = (
        f"command: [python3, {patient}, slow], ready: {{when: notify}}, boot_timeout: 1500ms, stop: {{timeout: 300ms}}"
    )
    master = start(f"pools: {{web: {{{pool}}}}}")
    pid = master.wait_for("worker_started")["pid"]
    with pytest.raises(TimeoutError):
        master.wait_for("worker_hung", timeout=2.3)
    os.kill(pid, signal.SIGUSR1)
    master.wait_for("worker_ready")
    master.send(signal.SIGTERM)
    master.wait_for("worker_stopping")
    with pytest.raises(TimeoutError):
        master.wait_for("worker_killed", timeout=0.6)
    os.kill(pid, signal.SIGUSR1)
    assert master.wait() == 0
    assert master.wait_for("worker_exited")["code"] == 0


def test_nobody_gets_more_time_to_stop_than_the_platform_gives(start: Start, script: Script) -> None:
    patient = script("patient.py", SAY + PATIENT)
    pool = f"command: [python3, {patient}, quick], ready: {{when: notify}}, stop: {{timeout: 300ms}}"
    master = start(f"pools: {{web: {{{pool}}}}}\nshutdown: {{grace_period: 3s}}")
    master.wait_for("worker_ready")
    code, seconds = master.stop()
    assert code == 137
    assert 0.9 < seconds < 3


# -- a flood -------------------------------------------------------------------------------------------------

FLOOD = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
say("READY=1", "STATUS=0")
count = 0
while True:
    count += 1
    say(f"STATUS={count}", "EXTEND_TIMEOUT_USEC=1", "X=1")
"""
BEATS = """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
say("READY=1")
while True:
    if signal.sigtimedwait({signal.SIGTERM}, 0.2):
        print("stopped in order", flush=True)
        sys.exit()
    say("WATCHDOG=1")
"""


def test_a_flood_of_messages_keeps_nobody_from_being_heard(live: Live, script: Script) -> None:
    flood, beats = script("flood.py", SAY + FLOOD), script("beats.py", SAY + BEATS)
    master = live.start(
        f"""
        pools:
          noisy: {{command: [python3, {flood}], ready: {{when: notify}}, stop: {{timeout: 500ms}}}}
          steady:
            command: [python3, {beats}]
            ready: {{when: notify}}
            heartbeat: {{timeout: 2s}}
            restart: {{min_uptime: 0s}}
            stop: {{timeout: 10s}}
        """,
        pid1=True,
    )
    master.wait_for("worker_ready", pool="noisy")
    first = master.wait_for("worker_ready", pool="steady")["pid"]
    counted = int(told(live, "noisy")[1])
    for _ in range(3):
        assert live.run("probe", "live") == (0, "", "")
    with pytest.raises(TimeoutError):
        master.wait_for("worker_hung", timeout=2.5)
    assert int(told(live, "noisy")[1]) > counted + 1000  # it is a flood
    os.kill(seen_from_here(master, first), signal.SIGKILL)
    master.wait_for("worker_exited", pid=first)
    master.wait_for("worker_ready", pool="steady")
    code, seconds = master.stop()
    assert code == 137  # the noisy one does not go by itself
    assert seconds < 5
    assert "stopped in order" in master.said
