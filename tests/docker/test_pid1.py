"""The master as PID 1: what it is, what it reaps, whom it hands the terminal to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.docker.conftest import Run

ORPHANS = "i=0; while [ $i -lt 300 ]; do (true &); i=$((i + 1)); done"
WAIT_FOR_NO_ZOMBIE = r"""
import os, pathlib, time
def zombies():
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            if stat.read_text().rpartition(") ")[2].startswith("Z"):
                yield stat
        except (FileNotFoundError, ProcessLookupError):
            pass
deadline = time.monotonic() + 10
while left := list(zombies()):
    if time.monotonic() > deadline:
        raise SystemExit(f"zombies: {left}")
    os.sched_yield()
"""


def test_the_master_is_pid_1_and_the_parent_of_the_worker(run: Run) -> None:
    box = run("--", "sh", "-c", r'echo parent $PPID; tr "\0" " " </proc/1/cmdline')
    assert box.wait() == 0, box.output
    assert "parent 1\n" in box.output
    assert "/opt/entrypoint/bin/entrypoint run -- sh -c" in box.output


def test_orphans_are_reaped(run: Run) -> None:
    box = run("--", "sh", "-c", f"{ORPHANS}; exec python3 -c '{WAIT_FOR_NO_ZOMBIE}'")
    assert box.wait() == 0, box.output


def test_orphans_of_docker_exec_are_reaped(run: Run) -> None:
    box = run("--", "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done")
    box.wait_for("up\n")
    assert box.container.exec_run(["sh", "-c", ORPHANS]).exit_code == 0
    code, output = box.container.exec_run(["python3", "-c", WAIT_FOR_NO_ZOMBIE])
    assert code == 0, output
    assert box.stop()[0] == 3


def test_a_command_with_or_without_dashes(run: Run) -> None:
    for arguments in (["--", "bash", "-c", "echo hello"], ["bash", "-c", "echo hello"]):
        box = run(*arguments)
        assert box.wait() == 0
        assert box.output == "hello\n"


def test_init_mode_in_spite_of_a_config(run: Run) -> None:
    box = run("--init", "bash", "-c", "echo mode:${ENTRYPOINT_POOL-init}", config="pools: {web: {command: [false]}}")
    assert box.wait() == 0, box.output
    assert box.output == "mode:init\n"


def test_a_command_replaces_that_of_the_only_pool(run: Run) -> None:
    config = "pools: {web: {command: ['false'], restart: {policy: never}}}"
    box = run("--", "sh", "-c", "echo this is $ENTRYPOINT_WORKER", config=config)
    assert box.wait() == 0, box.output
    assert "this is web/0\n" in box.output


def test_a_terminal_belongs_to_the_worker(run: Run) -> None:
    box = run("--init", "bash", "--norc", "-i", tty=True, stdin_open=True, environment={"PS1": "ready> "})
    box.wait_for("ready> ")
    assert "no job control" not in box.output
    assert "cannot set terminal process group" not in box.output

    # Ctrl-C: the kernel interrupts the foreground job, not the shell.
    box.send("sh -c 'trap \"echo interrupted; exit\" INT; echo started-$((40 + 2)); while :; do sleep 0.1; done'\n")
    box.wait_for("started-42")
    box.send("\x03")
    box.wait_for("interrupted\r\n.*ready> ")
    box.send("exit 5\n")
    assert box.wait() == 5
