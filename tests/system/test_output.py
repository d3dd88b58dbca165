"""`output: json`: what workers write becomes lines of the log."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Master

    Start = Callable[..., Master]

POOL = "pools: {{web: {{command: [{command}], output: json{more}}}}}\n"


def config(command: str, more: str = "", rest: str = "") -> str:
    """One pool that runs a shell command."""
    text = json.dumps(command)
    return POOL.format(command=f"/bin/sh, -c, {text}", more=f", {more}" if more else "") + rest


def python(code: str, more: str = "", rest: str = "") -> str:
    return POOL.format(command=f"python3, -c, {json.dumps(code)}", more=f", {more}" if more else "") + rest


def framed(master: Master) -> list[dict[str, Any]]:
    return [line for line in master.events if "stream" in line]


def wait_for_message(master: Master, text: str, timeout: float = 20) -> dict[str, Any]:
    """The first line of a worker that says so."""
    deadline, seen = time.monotonic() + timeout, 0
    while True:
        for line in master.events[seen:]:
            if line.get("message") == text:
                return line
        seen = len(master.events)
        assert master.read(deadline), f"{text} never came:\n{master.story()}"


def logger_of(master: Master) -> int:
    """The pid of its logger."""

    def find() -> list[int]:
        return [pid for pid in master.children() if b"\0logger\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    found: list[int] = master.until(find)
    return found[0]


@pytest.mark.parametrize("pid1", [True, False])
def test_lines_say_whose_they_are(start: Start, *, pid1: bool) -> None:
    command = 'echo out; echo err >&2; echo "{\\"a\\": 1, \\"slot\\": 7}"; echo done; exec sleep 60'
    master = start(config(command, "workers: 2"), pid1=pid1)
    pids = {master.wait_for("worker_started", slot=slot)["pid"]: slot for slot in (0, 1)}
    while sum(line.get("message") in ("done", "err") for line in framed(master)) < 4:
        assert master.read(time.monotonic() + 20)
    for pid, slot in pids.items():
        mine = [line for line in framed(master) if line["pid"] == pid]
        assert all((line["pool"], line["slot"]) == ("web", slot) for line in mine)
        out = [line for line in mine if line["stream"] == "stdout"]
        assert [line.get("message") for line in out] == ["out", None, "done"]
        assert (out[1]["a"], out[1]["slot_"]) == (1, 7)
        assert [line["message"] for line in mine if line["stream"] == "stderr"] == ["err"]
    assert master.stop()[0] == 0


def test_everybody_else_writes_to_the_master_s_own_output(start: Start) -> None:
    text = """
init: [{name: prepare, command: [echo, from init]}]
pools:
  web: {command: [sh, -c, "echo framed; exec sleep 60"], output: json, lifecycle: {post_start: [echo, from a hook]}}
  raw: {command: [sh, -c, "echo as it is; exec sleep 60"], after: [web], ready: {after: 0s}}
"""
    master = start(text.replace("output: json", "ready: {after: 0s}, output: json"))
    for line in ("from init", "from a hook", "as it is"):
        master.wait_for_line(f"^{line}$")
    assert wait_for_message(master, "framed")["pool"] == "web"
    assert master.stop()[0] == 0


def test_what_a_worker_wrote_outlives_it(start: Start) -> None:
    code = "import os; os.write(1, b''.join(b'%d\\n' % n for n in range(9000)) + b'cut off'); os.kill(os.getpid(), 9)"
    master = start(python(code, "restart: {policy: never}"))
    assert master.wait() == 137
    assert [line["message"] for line in framed(master)] == [*map(str, range(9000)), "cut off"]


def test_the_shutdown_writes_what_is_left(start: Start) -> None:
    code = (
        "import os, signal, sys\n"
        "def stop(*_):\n"
        "    os.write(1, b''.join(b'%d\\n' % n for n in range(50000)))\n"
        "    os.write(2, b'bye')\n"
        "    os._exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()"
    )
    master = start(python(code), pid1=True)
    wait_for_message(master, "ready")
    assert master.stop()[0] == 0
    out = [line["message"] for line in framed(master) if line["stream"] == "stdout"]
    assert out == ["ready", *map(str, range(50000))]
    assert [line["message"] for line in framed(master) if line["stream"] == "stderr"] == ["bye"]


def test_a_logger_that_is_killed_under_load_loses_no_line(start: Start) -> None:
    count = 60000
    code = (
        f"for n in range({count}): print(n, flush=n % 7 == 0)\nprint('done', flush=True)\nimport time; time.sleep(60)"
    )
    master = start(python(code))
    for lines in (1, 10000, 25000, 40000):
        while len(framed(master)) < lines:
            assert master.read(time.monotonic() + 20)
        before = logger_of(master)
        os.kill(before, signal.SIGKILL)
        master.wait_for("worker_exited", pool="logger", pid=before)
    wait_for_message(master, "done")
    numbers = [int(line["message"]) for line in framed(master) if line["message"] != "done"]
    assert set(numbers) == set(range(count))
    assert not master.all("worker_exited", pool="web")
    assert master.stop()[0] == 0


def test_a_reader_that_stops_reading_holds_up_the_workers_and_not_the_master(start: Start) -> None:
    code = "import os\nwhile True: os.write(1, b'x' * 200 + b'\\n')"
    master = start(python(code, "workers: 2"), pid1=True)
    master.wait_for("worker_started", slot=1)
    workers = [pid for pid in master.children() if pid != logger_of(master)]
    master.until(lambda: all("write" in Path(f"/proc/{pid}/wchan").read_text() for pid in workers), 20)
    began = time.monotonic()
    master.send(signal.SIGTERM)
    assert master.process.wait(15) == 0  # and nobody has read anything
    assert time.monotonic() - began < 10


def test_a_pool_that_gave_up_leaves_its_last_lines(start: Start, open_path: Path) -> None:
    log = open_path / "termination"
    log.touch()
    rest = f"shutdown: {{termination_log: {log}}}\n"
    command = 'seq 1 100; echo "cannot open the database: grüße" >&2; exit 3'
    master = start(config(command, "restart: {give_up_after: 2, backoff: {initial: 10ms}}", rest))
    assert master.wait() == 3
    last = master.wait_for("giving_up", pool="web", slot=0)["last_output"]
    assert "cannot open the database: grüße" in last
    assert {"99", "100"} <= set(last)
    assert len(last) == 10
    assert json.loads(log.read_text())["last_output"] == last


def test_a_job_that_failed_leaves_its_last_lines(start: Start, open_path: Path) -> None:
    log = open_path / "termination"
    log.touch()
    rest = f"shutdown: {{termination_log: {log}}}\n"
    master = start(config("echo no such row; exit 4", "restart: {policy: never}", rest))
    assert master.wait() == 4
    assert json.loads(log.read_text())["last_output"] == ["no such row"]


def test_long_last_lines_leave_room_for_the_reason(start: Start, open_path: Path) -> None:
    log = open_path / "termination"
    log.touch()
    rest = f"shutdown: {{termination_log: {log}}}\n"
    code = "import os\nfor n in range(20): os.write(2, b'\\x01' * 500 + b'\\n')\nos._exit(1)"
    master = start(python(code, "restart: {give_up_after: 1}", rest))
    assert master.wait() == 1
    said = json.loads(log.read_text())
    assert said["reason"] == "pool web gave up: 1 failed boots in a row"
    assert said["last_output"]


def test_a_reload_can_turn_it_on(start: Start, open_path: Path) -> None:
    text = config("echo hello; exec sleep 60", "ready: {after: 0s}, restart: {min_uptime: 0s}")
    master = start(text.replace("output: json", "output: inherit"))
    master.wait_for_line("^hello$")
    (open_path / "config.yaml").write_text(text)
    master.send(signal.SIGHUP)
    assert wait_for_message(master, "hello")["slot"] == 1
    master.wait_for("rollout_completed")
    assert master.stop()[0] == 0


def test_a_process_that_a_worker_left_behind_still_writes_and_holds_nothing_up(start: Start) -> None:
    command = (
        'if [ ! -e left ]; then touch left; (setsid sh -c "touch up; while [ ! -e go ]; do sleep 0.05; done; '
        'echo orphan; exec sleep 60" &); while [ ! -e up ]; do sleep 0.05; done; '
        "echo first; exit 1; fi; echo second; exec sleep 60"
    )
    master = start(config(command))
    first = master.wait_for("worker_started")["pid"]
    master.wait_for("worker_exited", pid=first)
    wait_for_message(master, "second")
    Path(f"/proc/{master.pid}/cwd/go").touch()
    assert wait_for_message(master, "orphan")["pid"] == first
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 10


def test_a_worker_may_close_its_output(start: Start) -> None:
    master = start(config("readlink /proc/$$/fd/1; exec >&- 2>&-; exec sleep 60", "ready: {after: 0s}"))
    pid = master.wait_for("worker_started")["pid"]
    while not (lines := framed(master)):
        assert master.read(time.monotonic() + 20)
    holders = [Path(f"/proc/{one}/fd") for one in (master.pid, logger_of(master))]
    master.until(lambda: lines[0]["message"] not in [os.readlink(fd) for holder in holders for fd in holder.iterdir()])
    assert master.alive(pid)
    assert master.stop()[0] == 0
    assert not master.all("worker_exited", reason="error")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_a_worker_of_another_user_can_open_its_output_again(start: Start) -> None:
    master = start(config("echo again > /dev/stdout; echo and again > /dev/stderr; exec sleep 60", 'user: "54329"'))
    assert wait_for_message(master, "again")["stream"] == "stdout"
    assert wait_for_message(master, "and again")["stream"] == "stderr"
    assert master.stop()[0] == 0


def test_a_worker_has_its_sockets_and_its_output_and_nothing_else(start: Start) -> None:
    rest = "sockets: {a: {bind: '127.0.0.1:0'}, b: {bind: '127.0.0.1:0'}}\n"
    code = (
        "import os, stat\n"
        "kind = lambda fd: 'socket' if stat.S_ISSOCK(os.fstat(fd).st_mode) else 'pipe' if "
        "stat.S_ISFIFO(os.fstat(fd).st_mode) else 'other'\n"
        "fds = [int(n) for n in os.listdir('/proc/self/fd')]\n"
        "print([kind(fd) for fd in range(5)], sum(os.path.exists(f'/proc/self/fd/{n}') for n in fds), flush=True)\n"
        "import time; time.sleep(60)"
    )
    master = start(python(code, "workers: 3, sockets: [a, b]", rest))
    while len(framed(master)) < 3:
        assert master.read(time.monotonic() + 20)
    wanted = "['other', 'pipe', 'pipe', 'socket', 'socket'] 5"
    assert {line["message"] for line in framed(master)} == {wanted}
    assert master.stop()[0] == 0


def test_lines_that_nobody_takes_are_counted(start: Start) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    rest = f"observer: {{bind: '{address}'}}\n"
    code = "import os, time\nos.write(1, b'one\\n')\nwhile not os.path.exists('go'): time.sleep(0.05)\n"
    code += "for n in range(5000): print(n, flush=True)\ntime.sleep(60)"
    master = start(python(code, "", rest))
    wait_for_message(master, "one")
    assert master.process.stdout is not None
    master.process.stdout.close()
    Path(f"/proc/{master.pid}/cwd/go").touch()

    def dropped() -> float:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        return max(
            float(line.split()[1])
            for line in text.splitlines()
            if line.startswith("entrypoint_log_lines_dropped_total")
        )

    master.until(lambda: dropped() >= 5000, 20)
    master.send(signal.SIGTERM)
    assert master.process.wait(15) == 0


def test_the_lines_cost_the_master_nothing(start: Start) -> None:
    code = "import os\nos.write(1, b'begin\\n')\nfor _ in range(100): os.write(1, b'some text of a line\\n' * 1000)\n"
    code += "os.write(1, b'done\\n')\nimport time; time.sleep(60)"
    master = start(python(code))
    wait_for_message(master, "begin")

    def ticks() -> int:
        fields = Path(f"/proc/{master.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    wait_for_message(master, "done", 60)
    assert len(framed(master)) == 100_002
    assert ticks() - before <= 0.1 * os.sysconf("SC_CLK_TCK")
    assert master.stop()[0] == 0
