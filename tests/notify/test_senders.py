"""Who may speak for a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from entrypoint.master.notify.channel import Channel, Message, Read

if TYPE_CHECKING:
    from tests.notify.conftest import Ear, Run, Say

READY = Read([Message(ready=True)], 0, False)
REFUSED = Read([], 1, False)
UID = os.getuid()
OTHER_UID = UID + 1  # of a worker that runs as somebody else: then no sender here passes for its uid

needs_root = pytest.mark.skipif(UID != 0, reason="changes users or makes namespaces")


def test_the_worker_itself_is_heard(channel: Channel, run: Run) -> None:
    worker = run("say(b'READY=1'); stay()")
    worker.line()
    assert channel.read(worker.pid, OTHER_UID) == READY


def test_a_thread_of_the_worker_is_heard(ear: Ear, run: Run) -> None:
    worker = run("import threading\nthreading.Thread(target=say, args=(b'READY=1',)).start()\nstay()")
    ear.until(lambda ear: bool(ear.reads), pid=worker.pid, uid=OTHER_UID)
    assert ear.reads == [READY]


@pytest.mark.parametrize("leave", ["", "os.setpgid(0, 0)", "os.setsid()"])
def test_a_child_is_heard_in_whatever_group_and_session(channel: Channel, run: Run, leave: str) -> None:
    worker = run(f"if os.fork(): os.wait()\nelse:\n {leave}\n say(b'READY=1'); stay()")
    assert int(worker.line()) != worker.pid
    assert channel.read(worker.pid, OTHER_UID) == READY


CHAIN = """
for _ in range({depth}):
    if os.fork():
        os.wait()
        os._exit(0)
    os.setsid()
say(b"READY=1")
stay()
"""


@pytest.mark.parametrize(("depth", "heard"), [(2, READY), (64, READY), (65, REFUSED)])
def test_a_descendant_is_heard_up_to_64_steps_below(channel: Channel, run: Run, depth: int, heard: Read) -> None:
    worker = run(CHAIN.format(depth=depth))
    worker.line()
    assert channel.read(worker.pid, UID) == heard


ORPHAN = """
output, input = os.pipe()
if os.fork():
    os.wait()
    os.close(input)
    os.read(output, 1)  # the end of it: the orphan has spoken
    stay()
os.close(output)
middle = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == middle:
    pass
{rest}
say(b"READY=1")
os.close(input)
sys.stdin.read()
"""


def test_a_grandchild_whose_parent_has_died_is_heard(channel: Channel, run: Run) -> None:
    worker = run(ORPHAN.format(rest=""))
    worker.line()
    assert channel.read(worker.pid, OTHER_UID) == READY


def test_a_descendant_of_an_orphan_is_heard(channel: Channel, run: Run) -> None:
    rest = "if os.fork():\n os.close(input)\n os.wait()\n os._exit(0)\nos.setsid()"
    worker = run(ORPHAN.format(rest=rest))
    worker.line()
    assert channel.read(worker.pid, OTHER_UID) == READY


def test_a_daemon_that_left_the_group_and_lost_its_parent_is_refused(channel: Channel, run: Run) -> None:
    worker = run(ORPHAN.format(rest="os.setsid()"))
    worker.line()
    assert channel.read(worker.pid, UID) == REFUSED


def test_the_name_of_a_program_cannot_pass_for_its_parent(channel: Channel, run: Run) -> None:
    name = "open('/proc/self/comm', 'w').write('a) S {} {} (b')"
    odd = "if os.fork(): os.wait()\nelse:\n os.setsid()\n " + name.format(1, 1)
    worker = run(odd + "\n if os.fork(): os.wait()\n else:\n  os.setsid(); say(b'READY=1'); stay()")
    worker.line()
    assert channel.read(worker.pid, OTHER_UID) == READY

    stranger = run(name.format(worker.pid, worker.pid) + "\nsay(b'READY=1'); stay()")
    stranger.line()
    assert channel.read(worker.pid, UID) == REFUSED


VANISHED = "if not os.fork():\n os.setsid(); say(b'READY=1'); os._exit(0)\n{wait}\nstay()"


def test_a_sender_that_is_gone_is_heard_when_it_had_the_workers_uid(channel: Channel, run: Run) -> None:
    for uid, expected in ((UID, READY), (OTHER_UID, REFUSED)):
        worker = run(VANISHED.format(wait="os.wait()"))
        worker.line()
        assert channel.read(worker.pid, uid) == expected


@needs_root
def test_the_uid_is_the_one_the_sender_had(channel: Channel, run: Run) -> None:
    for uid, expected in ((54321, READY), (54322, REFUSED), (0, REFUSED)):
        worker = run("if not os.fork():\n os.setgid(54322); os.setuid(54321); say(b'READY=1'); os._exit(0)\n"
                     "os.wait()\nstay()")  # fmt: skip
        worker.line()
        assert channel.read(worker.pid, uid) == expected


def test_a_dead_child_that_nobody_has_waited_for_is_heard(channel: Channel, run: Run) -> None:
    worker = run(VANISHED.format(wait="os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)"))
    worker.line()
    assert channel.read(worker.pid, OTHER_UID) == READY


def test_a_dead_process_of_unknown_descent_is_heard_when_it_had_the_workers_uid(channel: Channel, run: Run) -> None:
    worker = run("stay()")
    worker.line()
    for uid, expected in ((UID, READY), (OTHER_UID, REFUSED)):
        stranger = run("say(b'READY=1')")
        os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT)  # a zombie, of this process
        assert channel.read(worker.pid, uid) == expected


def test_a_stranger_is_refused_whatever_its_uid(channel: Channel, run: Run, say: Say) -> None:
    worker, stranger = run("stay()"), run("say(b'READY=1'); stay()")
    worker.line()
    stranger.line()
    assert channel.read(worker.pid, UID) == REFUSED
    say(b"STOPPING=1")  # the master's own place in the tree: above the worker
    assert channel.read(worker.pid, UID) == REFUSED


def test_a_stranger_does_not_keep_the_worker_from_being_heard(channel: Channel, run: Run, say: Say) -> None:
    say(b"WATCHDOG=trigger")
    worker = run("say(b'READY=1'); stay()")
    worker.line()
    say(b"STOPPING=1")
    assert channel.read(worker.pid, UID) == Read([Message(ready=True)], 2, False)


def test_while_the_workers_pid_is_not_known_the_uid_decides(channel: Channel, run: Run) -> None:
    for uid, expected in ((UID, READY), (OTHER_UID, REFUSED)):
        worker = run("say(b'READY=1'); stay()")
        worker.line()
        assert channel.read(0, uid) == expected


ELSEWHERE = """
import os, secrets, sys
from entrypoint.master.notify.channel import Channel
channel = Channel(secrets.token_hex(8), 1)
print(channel.address, flush=True)
sys.stdin.read(1)
print(channel.read(os.getpid(), 0), channel.read(0, 0), flush=True)
"""


@needs_root
def test_a_sender_that_has_no_pid_here_is_refused(channel: Channel, run: Run) -> None:
    import socket

    argv = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", ELSEWHERE]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as master:
        assert master.stdout is not None
        address = master.stdout.readline().strip()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:  # from the namespace above: pid 0 down there
            sock.sendto(b"READY=1", "\0" + address[1:])
        said, _ = master.communicate("x", timeout=20)
    assert said.strip() == f"{REFUSED} {Read([], 0, False)}"


@needs_root
def test_a_descendant_in_a_pid_namespace_below_is_heard(channel: Channel, run: Run) -> None:
    worker = run("say(b'READY=1'); stay()", via=("unshare", "--pid", "--fork", "setsid", "--wait"))
    assert int(worker.line()) < worker.pid  # its number down there
    assert channel.read(worker.pid, OTHER_UID) == READY
