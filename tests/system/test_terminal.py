"""Init mode on a terminal, as with `docker run -it`."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PID1 = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


class Terminal:
    """A program on a terminal of its own, and what the terminal shows."""

    def __init__(self, argv: list[str]) -> None:
        self.shown = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(argv[0], argv)

    def wait_for(self, pattern: str, timeout: float = 10) -> re.Match[str]:
        deadline = time.monotonic() + timeout
        while (match := re.search(pattern, self.shown)) is None:
            ready = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"{pattern} never came after:\n{self.shown}"
            self.shown += os.read(self.fd, 4096).decode(errors="replace")
        return match

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait(self) -> int:
        try:
            while piece := os.read(self.fd, 4096):
                self.shown += piece.decode(errors="replace")
        except OSError:  # the last one has closed it
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal() -> Iterator[Callable[[list[str]], Terminal]]:
    made: list[Terminal] = []

    def begin(argv: list[str]) -> Terminal:
        made.append(Terminal(argv))
        return made[-1]

    yield begin
    for one in made:
        try:
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(one.fd)


@pytest.mark.parametrize("prefix", [[], PID1], ids=["child", "pid1"])
def test_ctrl_c_reaches_the_worker(
    terminal: Callable[[list[str]], Terminal], entrypoint: str, prefix: list[str]
) -> None:
    trap = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    one = terminal([*prefix, entrypoint, "run", "--init", "sh", "-c", trap])
    one.wait_for("ready")
    one.type("\x03")
    one.wait_for("interrupted")
    assert one.wait() == 9
    assert one.shown.count("interrupted") == 1  # from the terminal, and not once more from the master


def test_the_worker_reads_what_is_typed(terminal: Callable[[list[str]], Terminal], entrypoint: str) -> None:
    one = terminal([entrypoint, "run", "--init", "sh", "-c", "echo ready; read line; echo read:$line"])
    one.wait_for("ready")
    one.type("hello\n")
    one.wait_for("read:hello")
    assert one.wait() == 0


def test_a_shell_on_it_has_job_control(terminal: Callable[[list[str]], Terminal], entrypoint: str) -> None:
    one = terminal([entrypoint, "run", "--init", "bash", "--norc", "-i"])
    one.wait_for("# ")
    one.type("sh -c 'echo star\"\"ted; exec sleep 1000'\n")
    one.wait_for("started")
    one.type("\x1a")  # Ctrl-Z stops the job, not the shell
    one.wait_for("Stopped")
    one.type("kill %1; echo $((40 + 2))\n")
    one.wait_for("42")
    one.type("exit 5\n")
    one.type("exit 5\n")
    assert one.wait() == 5
    assert "no job control" not in one.shown


def test_the_terminal_is_taken_back(terminal: Callable[[list[str]], Terminal], entrypoint: str) -> None:
    """A shell without job control starts it: afterwards, that shell must be able to read from the terminal."""
    one = terminal(["sh", "-c", f"{entrypoint} run --init true; echo back; read line; echo read:$line"])
    one.wait_for("back")
    one.type("again\n")
    one.wait_for("read:again")
    assert one.wait() == 0


def test_a_pool_on_a_terminal_logs_for_people(
    terminal: Callable[[list[str]], Terminal], entrypoint: str, tmp_path: os.PathLike[str]
) -> None:
    path = os.path.join(tmp_path, "config.yaml")
    with open(path, "w") as file:
        file.write("pools: {web: {command: [sleep, '1000']}}")
    one = terminal([entrypoint, "run", "-c", path])
    one.wait_for("worker_started")
    one.type("\x03")
    assert one.wait() == 0
    assert '{"' not in one.shown
