"""`output: inherit`: one standard output for all, and nobody can spoil it for another."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Start

COUNT = 20000
FLAG = "os.set_blocking(1, False); os.set_blocking(2, False)"
SLEEP = "import os, time; {}; open('flag', 'w').close(); time.sleep(600)"
# Each line in one write, so that it comes whole.
LINES = (
    "import os, time\n"
    "while not os.path.exists('flag'): time.sleep(0.01)\n"
    f"for n in range({COUNT}): os.write(1, b'LINE %d %s\\n' % (n, b'x' * 90))\n"
    "time.sleep(600)"
)
NODE = "console.log('up'); require('fs').writeFileSync('flag', ''); setInterval(() => {}, 1000)"

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def pool(name: str, argv: list[str], more: str = "") -> str:
    return f"  {name}: {{command: {json.dumps(argv)}{more and ', '}{more}}}\n"


def python(code: str) -> list[str]:
    return ["python3", "-c", code]


def shell(script: str) -> list[str]:
    return ["sh", "-c", f"{script}; exec sleep 600"]


def hook(code: str) -> str:
    return f"lifecycle: {{post_start: {json.dumps(python(code))}}}"


SPOILERS = {
    "node": "pools:\n" + pool("node", ["node", "-e", NODE]),
    "init": f"init: [{{name: prepare, command: {json.dumps(python('import os; ' + FLAG))}}}]\n"
    "pools:\n" + pool("b", python(SLEEP.format("pass"))),
    "hook": "pools:\n" + pool("b", ["sleep", "600"], hook(f"import os; {FLAG}; open('flag', 'w').close()")),
    "framed-hook": "pools:\n"
    + pool("b", ["sleep", "600"], "output: json, " + hook(f"import os; {FLAG}; open('flag', 'w').close()")),
}


@pytest.mark.parametrize("who", SPOILERS)
def test_who_makes_its_output_non_blocking_costs_nobody_else_a_line(start: Start, who: str) -> None:
    master = start(SPOILERS[who] + pool("lines", python(LINES)))
    pid: list[int] = master.until(lambda: [p for p in master.children() if "LINE" in master.descendants().get(p, "")])

    def waits_for_its_reader() -> bool:
        try:
            return "pipe_write" in Path(f"/proc/{pid[0]}/wchan").read_text()
        except OSError:
            return True  # it has ended, for the want of room

    master.until(waits_for_its_reader, 30)
    deadline = time.monotonic() + 60
    while not (master.said and master.said[-1].startswith(f"LINE {COUNT - 1} ")):
        assert master.read(deadline)
    numbers = [int(line.split()[1]) for line in master.said if line.startswith("LINE")]
    assert numbers == list(range(COUNT))
    assert master.stop()[0] == 0


def test_everybody_gets_a_blocking_output_though_the_master_s_is_not(start: Start) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    show = "import os; print('{}', os.get_blocking(1), os.get_blocking(2), flush=True); "
    init = f"init: [{{name: prepare, command: {json.dumps(python(show.format('init')))}}}]\n"
    worker = pool("web", python(show.format("worker") + "import time; time.sleep(600)"), hook(show.format("hook")))
    master = start(f"{init}pools:\n{worker}", stdout=writer, stderr=writer)
    text = ""
    while any(f"{who} True True" not in text for who in ("init", "worker", "hook")):
        assert select.select([reader], [], [], 10)[0], text
        text += os.read(reader, 1 << 16).decode()
    assert not os.get_blocking(writer)  # that is the business of whoever made it so
    os.close(writer)
    assert master.stop()[0] == 0
    os.close(reader)


@needs_root
def test_a_program_of_another_user_can_open_its_output_again(start: Start) -> None:
    master = start("""
init:
  - {name: one, command: [sh, -c, "echo init > /dev/stdout"], user: nobody}
pools:
  first: {command: [sh, -c, "echo first > /dev/stdout; exec sleep 600"], user: nobody}
  # Once the next one has had its turn; and its group is the group of the pipe.
  second:
    command: [sh, -c, "until [ -e go ]; do sleep 0.02; done; echo second >> /proc/self/fd/1; exec sleep 600"]
    user: nobody
    group: root
  third: {command: [sh, -c, "echo third > /dev/stdout; exec sleep 600"], user: daemon}
  framed:
    command: [sleep, "600"]
    user: "54329"
    output: json
    lifecycle: {post_start: [sh, -c, "echo hook > /dev/stdout"]}
""")
    for line in ("init", "first", "third", "hook"):
        master.wait_for_line(f"^{line}$")
    Path(f"/proc/{master.pid}/cwd/go").touch()
    master.wait_for_line("^second$")
    assert master.stop()[0] == 0
    assert "denied" not in master.errors


@needs_root
def test_a_program_of_another_user_cannot_take_the_lines_of_others(start: Start) -> None:
    read = "if cat < /dev/stdout; then echo stolen; else echo refused; fi"
    config = f"pools:\n{pool('web', shell(read), 'user: nobody')}"
    master = start(config)
    master.wait_for_line("^refused$")
    assert master.stop()[0] == 0


@needs_root
def test_a_reload_can_bring_another_user(start: Start, open_path: Path) -> None:
    root = "pools:\n" + pool("a", ["sleep", "600"])
    master = start(root, stderr=subprocess.STDOUT)
    master.wait_for("worker_started", pool="a")
    script = "echo err > /dev/stderr && echo out > /dev/stdout"
    (open_path / "config.yaml").write_text(root + pool("b", shell(script), "user: nobody"))
    master.send(signal.SIGHUP)
    master.wait_for_line("^out$")
    assert master.stop()[0] == 0


class Screen:
    """A master on a terminal, and what that shows."""

    def __init__(self, start: Start, config: str) -> None:
        self.shown = ""
        self.fd, self.line = pty.openpty()
        os.fchmod(self.line, 0o600)
        self.master = start(config, stdout=self.line, stderr=self.line)

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 10
        while text not in self.shown:
            ready = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"{text} never came after:\n{self.shown}"
            self.shown += os.read(self.fd, 4096).decode(errors="replace")

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.line)


@pytest.fixture
def screen(start: Start) -> Iterator[Callable[[str], Screen]]:
    made: list[Screen] = []

    def begin(config: str) -> Screen:
        made.append(Screen(start, config))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@needs_root
def test_a_program_of_another_user_can_open_the_terminal_while_the_master_runs(
    screen: Callable[[str], Screen],
) -> None:
    script = "echo hello > /dev/stdout; echo there > /dev/stderr; cat < /dev/stdout || echo private"
    one = screen(f"pools:\n{pool('web', shell(script), 'user: nobody')}")
    for line in ("hello", "there", "private"):
        one.wait_for(f"{line}\r\n")
    assert one.master.stop()[0] == 0
    found = os.fstat(one.line)
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, 0)


def test_a_terminal_stays_blocking_for_the_others(screen: Callable[[str], Screen]) -> None:
    a = pool("a", python(SLEEP.format(FLAG)))
    wait = "import os, time\nwhile not os.path.exists('flag'): time.sleep(0.01)\n"
    look = "print('blocks:', os.get_blocking(1), flush=True)\ntime.sleep(600)"
    one = screen(f"pools:\n{a}{pool('b', python(wait + look))}")
    one.wait_for("blocks: True")
    assert fcntl.fcntl(one.line, fcntl.F_GETFL) & os.O_NONBLOCK == 0
    assert one.master.stop()[0] == 0


def test_a_file_is_written_at_one_position(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    lines = "import os\nfor n in range(500): os.write(1, b'%s %d\\n' % (b'{}', n))\nimport time; time.sleep(600)"
    user = "user: nobody" if os.getuid() == 0 else ""
    config = f"init: [{{name: one, command: {json.dumps(['echo', 'init'])}}}]\npools:\n"
    with path.open("r+") as file:
        os.lseek(file.fileno(), 0, os.SEEK_END)
        master = start(config + "".join(pool(p, python(lines.format(p)), user) for p in "abc"), stdout=file)
    mode = path.stat().st_mode
    master.until(lambda: path.read_text().count("499\n") == 3)
    assert master.stop()[0] == 0
    written = path.read_text().splitlines()
    assert written[0] == "before"
    assert written.count("init") == 1
    for p in "abc":
        assert [line for line in written if line.startswith(f"{p} ")] == [f"{p} {n}" for n in range(500)]
    assert json.loads(written[-1])["event"] == "master_exiting"
    assert path.stat().st_mode == mode


def test_a_socket_is_passed_on(start: Start) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        script = "echo from init"
        config = f"init: [{{name: one, command: {json.dumps(['sh', '-c', script])}}}]\npools:\n"
        master = start(config + pool("web", shell("echo out; echo err >&2")), stdout=theirs, stderr=theirs)
        theirs.close()
        text = b""
        while not all(line in text for line in (b"from init\n", b"out\n", b"err\n")):
            assert select.select([ours], [], [], 10)[0], text
            text += ours.recv(4096)
        assert master.stop()[0] == 0


def test_a_fifo_that_nobody_reads_holds_nothing_up(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path, 0o600)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    user = "user: nobody" if os.getuid() == 0 else ""
    script = "until [ -e go ]; do sleep 0.02; done; echo still there"
    with path.open("wb") as writer:
        config = f"pools:\n{pool('web', shell(script), 'restart: {min_uptime: 0s}, ' + user)}"
        master = start(config, stdout=writer)
    worker = master.worker("sh")
    os.close(reader)
    for _ in range(3):
        os.kill(worker, signal.SIGKILL)
        worker = master.worker("sh", other_than=worker)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as again:
        Path(f"/proc/{master.pid}/cwd/go").touch()
        text = b""
        while b"still there\n" not in text:
            assert select.select([again], [], [], 10)[0], text
            text += os.read(again.fileno(), 4096)
        assert master.stop()[0] == 0


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(("sh", "-c", 'exec "$@" >&- 2>&-', "sh"), id="closed"),
        pytest.param(("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc; exec "$@"', "sh"), id="no-proc"),
        pytest.param(("setpriv", "--reuid", "54329", "--clear-groups"), id="of-another-user"),
    ],
)
@needs_root
def test_what_cannot_be_opened_is_passed_on(start: Start, open_path: Path, wrap: tuple[str, ...]) -> None:
    open_path.chmod(0o777)
    script = "echo said; echo done > done"
    reader, writer = os.pipe()
    master = start(f"pools:\n{pool('web', shell(script))}", wrap=wrap, stdout=writer, stderr=subprocess.DEVNULL)
    os.close(writer)
    master.until((open_path / "done").exists)
    assert master.stop()[0] == 0
    with open(reader, "rb") as rest:
        assert ("said\n" in rest.read().decode()) == (wrap[0] != "sh")
