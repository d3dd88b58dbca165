"""A world that refuses: no processes, no descriptors, no /proc, nothing to write to."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import entrypoint.master
from tests.system.conftest import poll
from tests.system.observed import Observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Start


def nobody(uid: int) -> tuple[str, ...]:
    """As a user that nobody else is: the limit of processes counts all of a user's, also those that are still dying.

    One who may look into every folder, since the interpreter may be below a home that is closed to others.
    """
    look = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    return ("setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *look)


MOUNTS = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")
WITHOUT_PROC = (*MOUNTS, "sh", "-c", 'umount -l /proc && test ! -e /proc/self && exec "$@"', "sh")


def limited(which: int, soft: int, hard: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (soft, hard))


def test_no_process_to_be_had(start: Start) -> None:
    """The limit counts the processes of a user: two more than the master has."""
    master = start(
        "pools: {web: {command: [sleep, '1000'], workers: 6, restart: {backoff: {initial: 50ms, max: 100ms}}}}",
        wrap=nobody(1234571),
        preexec_fn=limited(resource.RLIMIT_NPROC, 3, 100),
        cwd="/",
    )
    refused = master.wait_for("spawn_refused")
    assert re.fullmatch(r"cannot spawn web/\d: Resource temporarily unavailable", refused["error"])
    assert refused["retry_in"] > 0
    for _ in range(3):
        master.wait_for("spawn_refused")
    assert len(master.all("worker_started")) == 2
    subprocess.run([*nobody(1234571), "prlimit", f"--pid={master.pid}", "--nproc=100"], check=True)
    for _ in range(6):
        master.wait_for("worker_started")
    assert not master.all("giving_up")
    assert master.stop()[0] == 0


OBSERVED = """
observer: {{bind: "127.0.0.1:0"}}
pools:
  web:
    command: [sleep, '1000']
    workers: {0}
    min_ready_workers: {0}
    ready: {{after: 0s}}
    restart: {{backoff: {{initial: 50ms, max: 100ms}}}}
"""


def test_somebody_answers_who_asks_while_no_process_is_to_be_had(start: Start) -> None:
    """A kubelet that gets no answer would restart the container for ever."""
    master = start(
        OBSERVED.format(6),
        wrap=nobody(1234579),
        preexec_fn=limited(resource.RLIMIT_NPROC, 4, 100),
        cwd="/",
    )
    observed = Observed(master)
    assert observed.get("/livez").text == "ok\n"
    why = r"\d of 6 ready \(cannot spawn web/\d: Resource temporarily unavailable\)"
    poll(lambda: re.fullmatch(f"web: {why}\n", observed.get("/readyz").text))
    assert observed.get("/startupz").status == 503
    os.kill(observed.process(), signal.SIGKILL)  # workers wait for what that leaves free
    observed.until("/livez", 200)
    subprocess.run([*nobody(1234579), "prlimit", f"--pid={master.pid}", "--nproc=100"], check=True)
    observed.until("/readyz", 200)
    assert master.stop()[0] == 0


def test_somebody_answers_who_asks_while_no_descriptor_is_left_for_workers(start: Start) -> None:
    master = start(
        OBSERVED.format(80),
        preexec_fn=limited(resource.RLIMIT_NOFILE, 64, 64),
    )
    observed = Observed(master)
    poll(lambda: re.search(r"\(cannot spawn web/\d+: Too many open files\)", observed.get("/readyz").text))
    for _ in range(2):
        last = observed.process()
        os.kill(last, signal.SIGKILL)
        observed.process(other_than=last)
        observed.until("/livez", 200)
    assert master.stop()[0] == 0


def test_a_stop_while_no_process_is_to_be_had(start: Start) -> None:
    master = start(
        "pools: {web: {command: [sleep, '1000'], workers: 6, restart: {backoff: {initial: 1m, max: 1m}}}}",
        wrap=nobody(1234573),
        preexec_fn=limited(resource.RLIMIT_NPROC, 2, 2),
        cwd="/",
    )
    master.wait_for("spawn_refused")
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 1


def test_no_process_even_to_read_the_configuration(start: Start) -> None:
    master = start(
        "pools: {web: {command: [sleep, '1000']}}",
        wrap=nobody(1234574),
        preexec_fn=limited(resource.RLIMIT_NPROC, 1, 1),
        cwd="/",
    )
    master.wait_for("spawn_refused", pool="web", slot=0)
    assert master.stop()[0] == 0


@pytest.mark.parametrize("limit", range(6, 24))
def test_few_descriptors(start: Start, limit: int) -> None:
    """Each worker's own socket takes one. At whatever point they run out: no traceback, and a stop ends it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    master = start(
        f"""
        sockets: {{http: {{bind: "127.0.0.1:{port}", reuse_port: true}}}}
        pools:
          web:
            command: [sleep, '1000']
            sockets: [http]
            workers: 16
            restart: {{backoff: {{initial: 100ms, max: 100ms}}}}
        """,
        preexec_fn=limited(resource.RLIMIT_NOFILE, limit, limit),
    )
    try:
        master.wait_for("worker_started", timeout=2)
    except EOFError:
        code, seconds = master.wait(), 0.0
    except TimeoutError:
        code, seconds = master.stop()
    else:
        code, seconds = master.stop()
    assert seconds < 3
    assert code in {0, 1}, master.story()
    if code:
        assert master.errors == "entrypoint: cannot start: Too many open files\n"
    if limit >= 20:
        assert code == 0
        assert re.fullmatch(r"cannot spawn web/\d+: Too many open files", master.wait_for("spawn_refused")["error"])


def test_more_workers_than_the_soft_limit_of_open_files(start: Start) -> None:
    master = start(
        "pools: {web: {command: [sh, -c, 'echo limit $(ulimit -n); exec sleep 1000'], workers: 60}}",
        preexec_fn=limited(resource.RLIMIT_NOFILE, 64, 4096),
    )
    for slot in range(60):
        master.wait_for("worker_started", slot=slot)
    master.until(lambda: master.wait_for_line("limit"))
    assert set(master.said) == {"limit 64"}
    assert master.stop()[0] == 0


def test_frozen_and_thawed(start: Start) -> None:
    master = start("pools: {web: {command: [sleep, '1000'], workers: 2, restart: {min_uptime: 0s}}}")
    pids = [master.wait_for("worker_started", slot=slot)["pid"] for slot in range(2)]
    master.send(signal.SIGSTOP)
    master.until(lambda: master.status_of(master.pid, "State").startswith("T"))
    os.kill(pids[0], signal.SIGKILL)
    master.until(lambda: not master.alive(pids[0]))
    master.send(signal.SIGCONT)
    master.wait_for("worker_exited", slot=0, signal="KILL")
    master.wait_for("worker_started", slot=0)
    assert master.alive(pids[1])
    assert master.stop()[0] == 0


def test_no_deadline_looks_at_the_wall_clock() -> None:
    """A clock that is set cannot reach what never reads it: only the log tells the time of day."""
    assert entrypoint.master.__file__ is not None
    package = Path(entrypoint.master.__file__).parent.parent
    for part in ("core", "master"):
        for path in (package / part).glob("*.py"):
            calls = re.findall(r"\btime\.(?!monotonic\b)(\w+)", path.read_text())
            assert path.name == "log.py" or set(calls) <= {"sleep"}, path


def test_without_proc(start: Start) -> None:
    master = start(
        "pools: {web: {command: [sh, -c, 'echo up; exec sleep 1000'], restart: {min_uptime: 0s}}}",
        wrap=WITHOUT_PROC,
    )
    master.wait_for_line("up")
    worker = master.wait_for("worker_started")["pid"]
    assert worker < 100  # as seen from within
    inner = master.until(lambda: [p for p in master.descendants() if master.status_of(p, "NSpid").endswith("\t1")])[0]
    os.kill(inner, signal.SIGTERM)
    assert master.wait() == 0


def test_a_taken_port_without_proc(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        master = start(
            f"sockets: {{a: {{bind: '127.0.0.1:{port}'}}}}\npools: {{web: {{command: ['true'], sockets: [a]}}}}",
            wrap=WITHOUT_PROC,
        )
        assert master.wait() == 1
        assert master.errors.startswith(
            f"entrypoint: cannot bind 127.0.0.1:{port} (socket a): address already in use; the process that listens"
        )


def test_a_root_that_cannot_be_written(start: Start) -> None:
    master = start(
        "pools: {web: {command: [sh, -c, 'echo x 2>&1 >file || echo refused; exec sleep 1000']}}",
        wrap=(*MOUNTS, "sh", "-c", 'mount -o bind,ro / / && cd / && exec "$@"', "sh"),
    )
    # The folders of other file systems below stay writable; the working directory is not.
    master.wait_for_line("refused")
    inner = master.until(lambda: [p for p in master.descendants() if master.status_of(p, "NSpid").endswith("\t1")])[0]
    os.kill(inner, signal.SIGTERM)
    assert master.wait() == 0


@pytest.mark.parametrize("kind", ["missing", "folder", "read-only", "fifo"])
def test_a_termination_message_that_cannot_be_written(start: Start, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "message"
    if kind == "folder":
        path.mkdir()
    elif kind == "read-only":
        path.touch(0o400)
    elif kind == "fifo":
        os.mkfifo(path)
    master = start(
        f"pools: {{web: {{command: [sleep, '1000']}}}}\nshutdown: {{termination_log: {path}}}",
        wrap=nobody(1234575),
        cwd="/",
    )
    master.wait_for("worker_started")
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 1
    assert path.exists() == (kind != "missing")


def test_a_unix_socket_in_a_folder_that_cannot_be_written(start: Start, tmp_path: Path) -> None:
    master = start(
        f"sockets: {{a: {{bind: 'unix:{tmp_path}/socket'}}}}\npools: {{web: {{command: ['true'], sockets: [a]}}}}",
        wrap=nobody(1234576),
        cwd="/",
    )
    assert master.wait() == 1
    assert master.errors == f"entrypoint: cannot bind unix:{tmp_path}/socket (socket a): permission denied\n"


def test_an_idle_master_sleeps(start: Start) -> None:
    """No wake-up at all: neither clock ticks nor context switches while nothing happens."""
    master = start(
        "pools: {web: {command: [sleep, '1000'], workers: 5, ready: {after: 0s}, restart: {min_uptime: 0s}}}"
    )
    for slot in range(5):
        master.wait_for("worker_ready", slot=slot)

    def switches() -> int:
        return int(master.status_of(master.pid, "voluntary_ctxt_switches"))

    def quiet(seconds: float) -> bool:
        before = switches()
        select.select([], [], [], seconds)  # the time itself is what is looked at
        return switches() == before

    master.until(lambda: len(master.children()) == 5)  # the process that read the configuration has ended, too
    master.until(lambda: quiet(0.2))
    assert quiet(1)
    assert master.stop()[0] == 0


@pytest.mark.parametrize("words", [["run", "--", "true"], ["run", "-c", "CONFIG"]])
def test_what_is_missing_at_the_start_is_named(entrypoint: str, tmp_path: Path, words: list[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("pools: {web: {command: ['true']}}\ncontrol: {enabled: false}\nobserver: {enabled: false}\n")
    bare = ("sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh")
    command = [entrypoint, *(str(config) if word == "CONFIG" else word for word in words)]
    done = subprocess.run([*MOUNTS, *bare, *command], check=False, capture_output=True, text=True)
    assert done.stderr == "entrypoint: cannot start: /dev/null: No such file or directory\n"
    assert done.returncode == 1
