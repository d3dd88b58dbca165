"""The log: whole lines, no secrets, and never a reason to wait."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from entrypoint.master.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Master, Start

SLEEPER = "pools: {web: {command: [sleep, '1000'], restart: {min_uptime: 0s}}}"


def test_lines_are_json_with_the_fields_that_people_search_for(start: Start) -> None:
    master = start("pools: {web: {command: [sleep, '1000'], ready: {after: 0s}}}")
    started = master.wait_for("worker_started")
    ready = master.wait_for("worker_ready")
    assert master.stop()[0] == 0
    for line in master.events:
        assert list(line)[:3] == ["timestamp", "level", "event"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
        assert line["level"] in {"debug", "info", "warning", "error"}
    for line in (started, ready, *master.all("worker_exited")):
        assert (line["pool"], line["slot"]) == ("web", 0)
        assert line["pid"] == started["pid"]
    assert ready["duration"] >= 0
    assert master.all("worker_exited")[0]["reason"] == "shutdown"
    assert master.all("worker_exited")[0]["uptime"] > 0
    assert master.errors == ""


def test_a_level(start: Start) -> None:
    master = start(SLEEPER.replace("pools", "log: {level: warning}\npools") + "")
    os.kill(master.worker("sleep"), signal.SIGKILL)
    master.wait_for("worker_exited", level="warning")
    assert master.stop()[0] == 0
    assert {e["level"] for e in master.events} == {"warning"}


def test_secrets_never_appear(start: Start, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2-file")
    env_file = tmp_path / "env"
    env_file.write_text("TOKEN=hunter2-dotenv\n")
    message = tmp_path / "message"
    message.touch()
    master = start(
        f"""
        pools:
          web:
            command: [no-such-program, "--password=${{PASSWORD}}", "$(SECRET)"]
            env: {{SECRET: {{file: {secret}}}, PLAIN: hunter2-plain, MIXED: "${{PASSWORD}}"}}
            env_from: [{env_file}]
        log: {{level: debug}}
        shutdown: {{termination_log: {message}}}
        """,
        env={"PASSWORD": "hunter2-inherited"},
    )
    assert master.wait() == 127
    assert "no-such-program" in master.story()
    assert "hunter2" not in master.story()
    assert "hunter2" not in message.read_text()


def test_a_long_message_is_still_a_line_of_json(start: Start) -> None:
    program = "/no/such/" + "ü" * 1000 + '"' * 1000
    master = start(f"pools: {{web: {{command: ['{program}']}}}}")
    assert master.wait() in {126, 127}
    assert "cannot execute" in master.all("worker_exited")[0]["error"]
    assert not [line for line in master.said if line]


def fill(write: Callable[[], int]) -> None:
    try:
        while write():
            pass
    except BlockingIOError:
        pass


def full_pipe() -> tuple[int, int]:
    """A pipe that nobody reads, with room for nothing."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    fill(lambda: os.write(writer, b"#" * 4096))
    os.set_blocking(writer, True)
    return reader, writer


def cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def read_all(reader: int) -> str:
    data = b""
    while piece := os.read(reader, 1 << 16):
        data += piece
    return data.decode()


def respawns(master: Master, times: int) -> None:
    """Kill the worker and see another, this often, without the log."""
    worker = 0
    for _ in range(times):
        worker = master.worker("sleep", other_than=worker)
        os.kill(worker, signal.SIGKILL)
    master.worker("sleep", other_than=worker)


@pytest.mark.parametrize("pid1", [False, True])
def test_a_pipe_that_nobody_reads_stops_nothing(start: Start, *, pid1: bool) -> None:
    reader, writer = full_pipe()
    master = start(SLEEPER, stdout=writer, pid1=pid1)
    respawns(master, 5)
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 1
    os.close(writer)
    assert set(read_all(reader)) == {"#"}
    os.close(reader)


@pytest.mark.parametrize("pid1", [False, True])
def test_a_reader_that_has_gone_costs_nothing(start: Start, *, pid1: bool) -> None:
    reader, writer = os.pipe()
    master = start(SLEEPER, stdout=writer, pid1=pid1)
    os.close(writer)
    worker = master.worker("sleep")
    os.close(reader)
    for _ in range(5):  # each with lines that nobody takes
        os.kill(worker, signal.SIGKILL)
        worker = master.worker("sleep", other_than=worker)
    used = cpu_seconds(master.pid)
    time.sleep(1)  # the time that is measured
    assert cpu_seconds(master.pid) - used < 0.2
    assert master.stop()[0] == 0


def test_what_could_not_be_written_is_told_to_the_next_reader(tmp_path: Path) -> None:
    log = Log(os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR))
    assert log.output
    write, broken = log.output.write, True

    def sometimes(data: bytes) -> int:
        if broken:
            raise BrokenPipeError
        return write(data)

    log.output.write = sometimes  # type: ignore[method-assign] # a disk that is full for a time
    for number in range(200):
        log.emit("info", "lost", number=number)
        if number % 3 == 0:
            log.flush(64)
    for _ in range(10):
        log.flush(64)
    assert not log.pending
    assert log.dropped == 200
    broken = False
    log.emit("info", "back")
    log.flush(64)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["log_lines_dropped", "back"]
    assert lines[0]["count"] == 200


def test_what_was_dropped_is_counted_and_told(start: Start) -> None:
    reader, writer = full_pipe()
    master = start(SLEEPER, stdout=writer)
    os.close(writer)
    master.worker("sleep")
    for _ in range(6000):  # up to three lines each, and 4,096 are kept
        master.send(signal.SIGHUP)
        master.send(signal.SIGWINCH)
        while int(master.status_of(master.pid, "ShdPnd"), 16):
            pass
    master.worker("sleep")
    text = ""
    while "log_lines_dropped" not in text:
        assert select.select([reader], [], [], 10)[0]
        text += os.read(reader, 1 << 16).decode()
    while not text.endswith("\n"):
        text += os.read(reader, 1 << 16).decode()
    lines = [json.loads(line) for line in text.lstrip("#").splitlines()]
    told = next(line for line in lines if line["event"] == "log_lines_dropped")
    assert told["count"] > 0
    master.send(signal.SIGTERM)
    read_all(reader)
    os.close(reader)
    assert master.wait() == 0


def test_lines_come_also_under_a_load_without_end(start: Start) -> None:
    master = start("pools: {web: {command: ['true'], workers: 20, critical: false, restart: {min_uptime: 0s}}}")
    for _ in range(100):
        master.wait_for("worker_exited")
    assert master.stop()[0] == 0


def test_a_reader_that_goes_away_stops_nothing(start: Start) -> None:
    reader, writer = os.pipe()
    master = start(SLEEPER, stdout=writer)
    os.close(writer)
    assert b"master_started" in os.read(reader, 4096)
    os.close(reader)
    respawns(master, 3)
    assert master.stop()[0] == 0


def test_a_reader_that_goes_away_while_the_pipe_is_full(start: Start) -> None:
    reader, writer = full_pipe()
    master = start(SLEEPER, stdout=writer)
    os.close(writer)
    respawns(master, 2)
    os.close(reader)
    respawns(master, 3)
    assert master.stop()[0] == 0


@pytest.mark.parametrize("target", ["/dev/full", "/dev/null"])
def test_a_full_disk_stops_nothing(start: Start, target: str) -> None:
    with open(target, "w") as file:
        master = start(SLEEPER, stdout=file)
    respawns(master, 3)
    assert master.stop()[0] == 0


def test_standard_error_that_is_full_stops_nothing(start: Start) -> None:
    reader, writer = full_pipe()
    master = start(SLEEPER, stderr=writer)
    respawns(master, 2)
    assert master.stop()[0] == 0
    os.close(reader)
    os.close(writer)


def test_a_socket_as_standard_output(start: Start) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        master = start(SLEEPER, stdout=theirs)
        theirs.close()
        text = b""
        while b"worker_started" not in text:
            text += ours.recv(4096)
        assert master.stop()[0] == 0
        while piece := ours.recv(4096):
            text += piece
        lines = [json.loads(line) for line in text.splitlines()]
        assert lines[-1]["event"] == "master_exiting"


def test_a_socket_that_nobody_reads_stops_nothing(start: Start) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        fill(lambda: theirs.send(b"#" * 4096, socket.MSG_DONTWAIT))
        master = start(SLEEPER, stdout=theirs)
        theirs.close()
        respawns(master, 3)
        code, seconds = master.stop()
        assert code == 0
        assert seconds < 1


def test_the_workers_see_a_blocking_standard_output(start: Start) -> None:
    """The master writes without blocking; the flag of the description that it shares must not tell of it."""
    reader, writer = os.pipe()
    master = start(SLEEPER, stdout=writer)
    assert b"master_started" in os.read(reader, 4096)
    assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(writer)
    assert master.stop()[0] == 0
    os.close(reader)


def test_a_file_gets_the_lines_of_master_and_workers_in_full(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        master = start(
            "pools: {web: {command: [sh, -c, 'echo from the worker; exec sleep 1000']}}",
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    master.until(lambda: "from the worker" in path.read_text())
    assert master.stop()[0] == 0
    lines = path.read_text().splitlines()
    assert lines.count("from the worker") == 1
    assert json.loads(lines[-1])["event"] == "master_exiting"


def test_rendering_json_takes_little_of_structlog() -> None:
    """What else it would import is most of the master's memory."""
    code = """
import sys
from entrypoint.master.log import renderer
print(renderer(console=False)({"timestamp": "now", "level": "info", "event": "said", "text": "ü"}))
print([m for m in ("asyncio", "dataclasses", "inspect", "structlog", "structlog.dev") if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ['{"timestamp": "now", "level": "info", "event": "said", "text": "\\u00fc"}', "[]"]
