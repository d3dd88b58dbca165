"""`entrypoint status`: tables, JSON, and what a watcher sees."""

from __future__ import annotations

import copy
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.cli.common import cut
from entrypoint.cli.table import duration, render
from tests.control.conftest import BASE_ENV, Loop

if TYPE_CHECKING:
    from collections.abc import Iterator

STARTED = 1_700_000_000.0  # 2023-11-14T22:13:20Z
STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "pid": os.getpid(),
    "phase": "running",
    "started_at": "2023-11-14T22:13:20Z",
    "config": {"path": "/etc/entrypoint/config.yaml", "sha256": "ab", "loaded_at": "2023-11-14T22:13:20Z", "error": ""},
    "pools": {
        "web": {
            "desired": 2,
            "pinned": True,
            "ready": 1,
            "generation": 3,
            "state": "running",
            "restarts": 7,
            "last_error": "web/1 was killed by SEGV",
            "rollout": {
                "generation": 3,
                "phase": "replacing",
                "since_seconds": 12.5,
                "replaced": 1,
                "total": 2,
                "reason": "",
            },
            "workers": [
                {
                    "id": "web/0",
                    "slot": 0,
                    "pid": os.getpid(),
                    "state": "ready",
                    "generation": 3,
                    "start_time_seconds": 1_700_000_000.5,
                    "age_seconds": 3725.9,
                    "restarts": 0,
                    "heartbeat_age_seconds": 0.44,
                    "resident_memory_bytes": None,
                    "status": "serving \x1b[31mred\x1b[0m\x07\u202e",
                },
                {
                    "id": "web/1",
                    "slot": 1,
                    "pid": 4_194_305,
                    "state": "starting",
                    "generation": 3,
                    "start_time_seconds": 1_700_003_725.4,
                    "age_seconds": 1,
                    "restarts": 7,
                    "heartbeat_age_seconds": None,
                    "resident_memory_bytes": 52_428_800,
                    "status": "",
                },
            ],
        },
        "jobs": {
            "desired": 1,
            "pinned": False,
            "ready": 0,
            "generation": 1,
            "state": "stopped",
            "restarts": 0,
            "last_error": "",
            "rollout": None,
            "workers": [],
        },
    },
    "sockets": {},
    "events": [],
}
TABLE = """\
entrypoint 1.2.3, running, pid 1, up 1d 1h, /etc/entrypoint/config.yaml

POOL  STATE    READY  PINNED  GENERATION  RESTARTS  ROLLOUT                LAST ERROR
web   running    1/2  yes              3         7  replacing 1/2 for 12s  web/1 was killed by SEGV
jobs  stopped    0/1  no               1         0  -                      -

WORKER      PID  STATE     GENERATION    AGE  RESTARTS  HEARTBEAT    MEMORY  STATUS
web/0         7  ready              3  1h 2m         0       0.4s  12.0 MiB  serving ?[31mred?[0m??
web/1   4194305  starting           3     1s         7          -  50.0 MiB  -
"""


@pytest.fixture
def status() -> dict[str, Any]:
    return copy.deepcopy(STATUS)


@pytest.fixture
def serving(loop: Loop, status: dict[str, Any]) -> Loop:
    loop.replies["status"] = {"ok": True, "status": status}
    return loop


# -- the tables ----------------------------------------------------------------------------------------------


def test_the_tables(status: dict[str, Any]) -> None:
    status["pid"] = 1
    status["pools"]["web"]["workers"][0] |= {"pid": 7, "resident_memory_bytes": 12 << 20}
    assert render(status, 0, STARTED + 90_000) == TABLE


def test_a_rejected_reload_is_shown(status: dict[str, Any]) -> None:
    status["config"]["error"] = "cannot load c.yaml:2: x\ncannot load c.yaml:3: \x1b[2J"
    lines = render(status, 0, STARTED).splitlines()
    assert lines[1:5] == [
        "the last reload was rejected:",
        "  cannot load c.yaml:2: x",
        "  cannot load c.yaml:3: ?[2J",
        "",
    ]


def test_a_rollout_that_goes_back_says_why(status: dict[str, Any]) -> None:
    status["pools"]["web"]["rollout"] |= {"phase": "rolling back", "reason": "web/2 ended before it was ready"}
    assert "rolling back 1/2 for 12s: web/2 ended before it was ready" in render(status, 0, STARTED)


@pytest.mark.parametrize("width", [1, 20, 60, 100])
def test_a_narrow_terminal_cuts_what_is_last(status: dict[str, Any], width: int) -> None:
    status["pools"]["web"]["workers"][0]["status"] = "日本語" * 30
    whole = render(status, 0, STARTED).splitlines()
    for line, full in zip(render(status, width, STARTED).splitlines(), whole, strict=True):
        assert line == full or (line[-1] == "…" and full.startswith(line[:-1]))
        assert len(line) <= width


def test_wide_characters_count_twice() -> None:
    assert [cut("日本語", width) for width in (6, 5, 4, 0)] == ["日本語", "日本…", "日…", "日本語"]


def test_pools_without_workers(status: dict[str, Any]) -> None:
    status["pools"] = {"jobs": status["pools"]["jobs"]}
    assert "WORKER" not in render(status, 0, STARTED)
    status["pools"] = {}
    assert render(status, 0, STARTED).splitlines()[2].startswith("POOL  STATE")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(None, "-"), (0, "0s"), (0.44, "0.4s"), (9.99, "9.9s"), (10, "10s"), (59.9, "59s"), (60, "1m 0s")],
        *[(3599, "59m 59s"), (3600, "1h 0m"), (86399, "23h 59m"), (86400, "1d 0h"), (-0.5, "0s")],
    ],
)
def test_durations_in_words(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


# -- the command ---------------------------------------------------------------------------------------------


def test_the_table_of_a_running_master(serving: Loop, entrypoint: str) -> None:
    ran = serving.run(entrypoint, "status", "--socket", serving.control.path)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"entrypoint 1.2.3, running, pid {os.getpid()}, up ")
    assert [line.split()[0] for line in lines if line] == [
        "entrypoint",
        "POOL",
        "web",
        "jobs",
        "WORKER",
        "web/0",
        "web/1",
    ]
    assert not set(ran.out) & {"\x1b", "\x07", "\u202e"}


def test_an_output_that_cannot_write_every_character(serving: Loop, entrypoint: str, status: dict[str, Any]) -> None:
    status["pools"]["web"]["workers"][0]["status"] = "größer 日本"
    env = {**BASE_ENV, "PYTHONIOENCODING": "ascii"}
    ran = serving.run(entrypoint, "status", "--socket", serving.control.path, env=env)
    assert (ran.code, ran.err) == (0, "")
    assert "gr??er ??" in ran.out


def test_one_pool_only(serving: Loop, entrypoint: str) -> None:
    ran = serving.run(entrypoint, "status", "jobs", "--socket", serving.control.path)
    assert ran.code == 0
    assert "jobs" in ran.out
    assert "web" not in ran.out
    ran = serving.run(entrypoint, "status", "jobs", "--json", "--socket", serving.control.path)
    assert list(json.loads(ran.out)["pools"]) == ["jobs"]


@pytest.mark.parametrize("more", [[], ["--json"], ["--watch"]])
def test_a_pool_that_does_not_exist(serving: Loop, entrypoint: str, more: list[str]) -> None:
    ran = serving.run(entrypoint, "status", "wbe", *more, "--socket", serving.control.path)
    assert (ran.code, ran.out, ran.err) == (1, "", "entrypoint: cannot show wbe: no such pool\n")


def test_json_is_the_masters_with_the_memory_filled_in(serving: Loop, entrypoint: str) -> None:
    ran = serving.run(entrypoint, "status", "--json", "--socket", serving.control.path)
    got = json.loads(ran.out)
    memory = got["pools"]["web"]["workers"][0]["resident_memory_bytes"]
    assert memory % os.sysconf("SC_PAGESIZE") == 0
    assert 5 << 20 < memory < 1 << 30
    got["pools"]["web"]["workers"][0]["resident_memory_bytes"] = None
    assert got == STATUS


def test_a_worker_that_has_gone_has_no_memory(serving: Loop, entrypoint: str, status: dict[str, Any]) -> None:
    status["pools"]["web"]["workers"][1]["resident_memory_bytes"] = None
    ran = serving.run(entrypoint, "status", "--json", "--socket", serving.control.path)
    assert json.loads(ran.out)["pools"]["web"]["workers"][1]["resident_memory_bytes"] is None


def test_pids_of_another_namespace_are_not_looked_up(serving: Loop, entrypoint: str, status: dict[str, Any]) -> None:
    status["pid"] = 1
    ran = serving.run(entrypoint, "status", "--json", "--socket", serving.control.path)
    assert json.loads(ran.out)["pools"]["web"]["workers"][0]["resident_memory_bytes"] is None


def test_a_reader_that_leaves_early_is_no_error(serving: Loop, entrypoint: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    running = serving.start(entrypoint, "status", "--socket", serving.control.path, stdout=writing)
    os.close(writing)
    assert running.wait() == -signal.SIGPIPE
    assert running.err == ""


# -- watching ------------------------------------------------------------------------------------------------


def test_watching_without_a_terminal_survives_a_restart_of_the_master(serving: Loop, entrypoint: str) -> None:
    path = serving.control.path
    running = serving.start(entrypoint, "status", "--watch", "--socket", path)
    serving.until(lambda: running.out.count("entrypoint 1.2.3") == 2)
    serving.control.close()
    serving.until(lambda: "waiting for the master: " in running.out)
    serving.control.open()
    serving.until(lambda: running.out.rpartition("waiting for the master")[2].count("entrypoint 1.2.3") == 1)
    running.process.send_signal(signal.SIGINT)
    assert (running.wait(), running.err) == (130, "")
    assert f"\n\nwaiting for the master: {path}: no such file or directory\n" in running.out
    assert "\x1b" not in running.out


def test_watching_as_json_prints_an_object_a_line(serving: Loop, entrypoint: str) -> None:
    running = serving.start(entrypoint, "status", "--watch", "--json", "--socket", serving.control.path)
    serving.until(lambda: running.out.count("\n") == 2)
    running.process.send_signal(signal.SIGTERM)
    assert (running.wait(), running.err) == (143, "")
    assert [json.loads(line)["version"] for line in running.out.splitlines()] == ["1.2.3"] * 2


class Screen:
    """A terminal with a command on it."""

    def __init__(self, loop: Loop, argv: list[str], rows: int, columns: int) -> None:
        self.loop = loop
        self.ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.set_blocking(self.ours, False)
        self.text = ""
        # Its own session with the terminal: so Ctrl-C reaches it as from a keyboard.
        self.running = loop.start("setsid", "--ctty", *argv, stdin=theirs, stdout=theirs)
        os.close(theirs)

    def read(self) -> str:
        try:
            self.text += os.read(self.ours, 1 << 16).decode()
        except (BlockingIOError, OSError):
            pass
        return self.text


@pytest.fixture
def screen(serving: Loop, entrypoint: str) -> Iterator[Screen]:
    one = Screen(serving, [entrypoint, "status", "--watch", "--socket", serving.control.path], 8, 50)
    yield one
    os.close(one.ours)


def test_watching_on_a_terminal_takes_the_other_screen_and_gives_it_back_at_ctrl_c(screen: Screen) -> None:
    screen.loop.until(lambda: screen.read().count("\x1b[H") == 2)
    os.write(screen.ours, b"\x03")
    assert screen.running.wait() == 130
    frames = screen.read().split("\x1b[H")
    assert frames[0] == "\x1b[?1049h\x1b[?25l"
    assert frames[-1].rpartition("\x1b[J")[2].removeprefix("^C") == "\x1b[?25h\x1b[?1049l"
    lines = frames[1].partition("\x1b[J")[0].split("\r\n")
    assert len(lines) == 8, "no more than the terminal has"
    assert all(line.endswith("\x1b[K") and len(line) <= 50 + 3 for line in lines)
    assert lines[3].startswith("web   running    1/2  yes")


def test_watching_on_a_terminal_gives_the_screen_back_at_a_term(screen: Screen) -> None:
    screen.loop.until(lambda: "\x1b[J" in screen.read())
    screen.running.process.send_signal(signal.SIGTERM)
    assert screen.running.wait() == 143
    assert screen.read().endswith("\x1b[?25h\x1b[?1049l")


def test_json_does_not_load_the_table_library() -> None:
    code = "import entrypoint.cli.status, sys; print('tabulate' in sys.modules)"
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.check_output([sys.executable, "-S", "-c", code], env=env, text=True) == "False\n"
