"""The clients that people use."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.master.notify.channel import Message

if TYPE_CHECKING:
    from tests.notify.conftest import Ear, Run

# An ordinary process sends its own pid, which is gone soon; root's systemd-notify signs with that of its parent.
USERS: list[dict[str, Any]] = [{}]
if os.getuid() == 0:
    USERS.append({"user": 54321, "group": 54321, "extra_groups": [], "cwd": "/"})


def uid(options: dict[str, Any]) -> int:
    return int(options.get("user", os.getuid()))


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    if not shutil.which("systemd-notify"):
        pytest.fail("cannot find systemd-notify: install the package systemd, or run scripts/setup-test-machine")


@pytest.mark.parametrize("options", USERS)
def test_systemd_notify_in_a_script_is_heard_and_waits_for_that(ear: Ear, run: Run, options: dict[str, Any]) -> None:
    worker = run(["sh", "-c", "systemd-notify --ready --status='all up' && echo passed; read x"], **options)
    assert ear.until_line(worker, uid=uid(options)) == "passed"  # by default it waits for its barrier
    assert ear.messages == [Message(ready=True, status="all up")]
    assert ear.refused == 0


@pytest.mark.parametrize("options", USERS)
def test_systemd_notify_that_is_gone_before_anybody_reads_is_heard(ear: Ear, run: Run, options: dict[str, Any]) -> None:
    script = "systemd-notify --no-block --ready; setsid -w systemd-notify --no-block WATCHDOG=1; echo gone; read x"
    worker = run(["sh", "-c", script], **options)
    assert worker.line() == "gone"
    ear.until(lambda ear: len(ear.messages) == 2, pid=worker.pid, uid=uid(options))
    assert ear.messages == [Message(ready=True), Message(beat=True)]
    assert ear.refused == 0


@pytest.mark.parametrize("options", USERS)
def test_systemd_notify_of_another_worker_is_refused(ear: Ear, run: Run, options: dict[str, Any]) -> None:
    worker = run(["sh", "-c", "echo here; read x"])
    worker.line()
    stranger = run(["sh", "-c", "systemd-notify --ready && echo passed; read x"], **options)
    assert ear.until_line(stranger, pid=worker.pid, uid=uid(options)) == "passed"
    assert ear.messages == []
    assert ear.refused > 0  # its barrier as well, unless it is gone the moment that this is passed


def test_systemd_notify_with_a_pid_is_heard_but_for_the_pid(ear: Ear, run: Run) -> None:
    worker = run(["sh", "-c", "systemd-notify --no-block --pid=$$ STOPPING=1; echo said; read x"])
    assert worker.line() == "said"
    ear.until(lambda ear: bool(ear.messages), pid=worker.pid)
    assert ear.messages == [Message(stopping=True, mainpid=True)]


# What programs in C call, and so do the bindings of other languages, like the npm package sd-notify.
LIBSYSTEMD = """
import ctypes
lib = ctypes.CDLL("libsystemd.so.0")
print(lib.sd_notify(0, b"READY=1"), lib.sd_pid_notify(os.getpid(), 0, b"WATCHDOG=1"), flush=True)
print(lib.sd_notify_barrier(0, ctypes.c_uint64(20_000_000)), flush=True)
stay()
"""


def test_libsystemd_is_heard_and_its_barrier_passed(ear: Ear, run: Run) -> None:
    worker = run(LIBSYSTEMD)
    assert worker.line() == "1 1"  # sent
    assert ear.until_line(worker) == "1"
    assert ear.messages == [Message(ready=True), Message(beat=True)]


def test_sdnotify_is_heard(ear: Ear, run: Run) -> None:
    code = (
        "import os, sys, sdnotify\nn = sdnotify.SystemdNotifier(debug=True)\n"
        "for state in ('READY=1', 'STATUS=Count is 7', 'WATCHDOG=1', 'STOPPING=1'): n.notify(state)\n"
        "print('said', flush=True)\nsys.stdin.read()"
    )
    worker = run([sys.executable, "-c", code])
    assert worker.line() == "said"
    ear.until(lambda ear: len(ear.messages) == 4, pid=worker.pid)
    assert ear.messages == [
        Message(ready=True),
        Message(status="Count is 7"),
        Message(beat=True),
        Message(stopping=True),
    ]
