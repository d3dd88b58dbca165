"""Every example starts, visibly works, and ends with exit code 0 on TERM."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Start = Callable[..., "Example"]


class Example:
    """A running `entrypoint run` and the lines it has printed so far."""

    def __init__(self, entrypoint: str, config: Path, control: Path, env: dict[str, str]) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        places = {"ENTRYPOINT_CONTROL__SOCKET": str(control), "ENTRYPOINT_OBSERVER__BIND": "127.0.0.1:0"}
        self.control = control
        self._entrypoint = entrypoint
        self.process = subprocess.Popen(
            [entrypoint, "run", "-c", config.name],
            cwd=config.parent,
            env={**os.environ, "PATH": path, **places, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.output = ""

    def read(self, deadline: float) -> bool:
        """Read what comes next; False at the end of the output."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"nothing more was printed after:\n{self.output}")
        piece = os.read(self.process.stdout.fileno(), 65536)
        self.output += piece.decode()
        return bool(piece)

    def wait_for(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        """Wait until the whole output matches."""
        deadline = time.monotonic() + timeout
        while (match := re.search(pattern, self.output, re.DOTALL)) is None:
            if not self.read(deadline):
                raise EOFError(f"{pattern} never came, the program ended with:\n{self.output}")
        return match

    def ask(self, *words: str) -> str:
        """What a command answers that speaks to the running master."""
        argv = [self._entrypoint, *words, "--socket", str(self.control)]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout

    def stop(self, timeout: float = 30) -> int:
        self.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while self.read(deadline):
            pass
        return self.process.wait(timeout)


@pytest.fixture
def start(entrypoint: str, root: Path, tmp_path: Path) -> Iterator[Start]:
    examples = []

    def begin(config: str | Path, **env: str) -> Example:
        examples.append(Example(entrypoint, root / config, tmp_path / "c.sock", env))
        return examples[-1]

    yield begin
    for example in examples:
        if example.process.poll() is None:
            example.process.send_signal(signal.SIGQUIT)
            try:
                example.process.wait(10)
            except subprocess.TimeoutExpired:
                example.process.kill()
                example.process.wait()
        assert example.process.stdout is not None
        example.process.stdout.close()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
        return number


def ask(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        body: str = answer.read().decode()
    return body


def ask_until(port: int, workers: set[str], timeout: float = 30) -> dict[str, int]:
    """Ask the web server again and again until each of the workers has answered; return their pids."""
    seen: dict[str, int] = {}
    deadline = time.monotonic() + timeout
    while not workers <= seen.keys():
        assert time.monotonic() < deadline, f"only {sorted(seen)} answered"
        match = re.fullmatch(r"hello from (\S+), pid (\d+)\n", ask(port))
        assert match is not None
        seen[match[1]] = int(match[2])
    return seen


def has_bound(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("folder", ["", "examples/uvicorn", "examples/gunicorn"])
def test_every_web_worker_answers_on_the_shared_socket_and_a_killed_one_is_replaced(
    start: Start, port: int, folder: str
) -> None:
    example = start(f"{folder}/config.yaml".lstrip("/"), PORT=str(port))
    example.wait_for({"": r"serving, pid", "examples/uvicorn": r"startup complete"}.get(folder, r"Listening at"))
    first = ask_until(port, {"web/0", "web/1"})

    os.kill(first["web/0"], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while (second := ask_until(port, {"web/0", "web/1"}))["web/0"] == first["web/0"]:
        assert time.monotonic() < deadline, "web/0 was not replaced"
    assert second["web/1"] == first["web/1"]

    assert example.stop() == 0, example.output
    assert "Traceback" not in example.output
    assert not has_bound(port)


def test_the_ticker_of_the_first_example_ticks_and_ends_by_itself(start: Start, port: int) -> None:
    example = start("config.yaml", PORT=str(port))
    example.wait_for(r"ticker/0: tick 2\n")
    assert example.stop() == 0, example.output
    assert re.search(r"ticker/0: asked to stop after \d+ ticks", example.output)


def test_a_change_of_the_first_example_replaces_its_web_workers_and_loses_no_request(
    start: Start, port: int, root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "examples", tmp_path / "examples")
    config = Path(shutil.copy(root / "config.yaml", tmp_path))
    example = start(config, PORT=str(port))
    example.wait_for(r"pool_ready\W.*pool_ready\W")
    assert "hello from web/" in ask(port)

    new = config.with_name("new.yaml")
    new.write_text(config.read_text().replace("hello from", "good day from"))
    new.rename(config)
    deadline = time.monotonic() + 30
    in_a_row = 0
    while in_a_row < 20:  # both workers are new ones then
        assert time.monotonic() < deadline, "the old ones are still there"
        in_a_row = in_a_row + 1 if "good day from web/" in ask(port) else 0
    example.wait_for(r"rollout_started")
    assert "ticker/0" in example.ask("status")
    assert example.stop() == 0, example.output
    assert "rollout_failed" not in example.output
    assert len(re.findall(r"worker_started\W+pool\W+ticker", example.output)) == 1


def test_a_worker_of_the_notify_example_that_hangs_says_where_and_is_replaced(start: Start) -> None:
    example = start("examples/notify/config.yaml")
    example.wait_for(r"worker_ready.*worker_ready")
    status = ""
    pid = int(example.wait_for(r"jobs/1: at work, pid (\d+)")[1])
    deadline = time.monotonic() + 30
    while status.count("pieces of work done") < 2:
        assert time.monotonic() < deadline, status
        status = example.ask("status")
    assert re.search(rf"jobs/1\s+{pid}\s+ready", status), status

    os.kill(pid, signal.SIGUSR1)
    example.wait_for(r"jobs/1: hangs.*worker_hung")
    example.wait_for(r"Fatal Python error: .*Aborted.*in work\b")
    example.wait_for(r"worker_hung.*jobs/1: at work, pid \d+.*worker_ready")
    assert example.stop() == 0, example.output
    assert len(re.findall(r"jobs/\d: asked to stop", example.output)) == 2


def test_redis_starts_before_its_clients_and_stops_after_them(start: Start, port: int) -> None:
    example = start("examples/redis/config.yaml", REDIS_PORT=str(port))
    for client in ("client/0", "client/1"):
        example.wait_for(rf"{client}: the counter is at \d+")
    assert example.stop() == 0, example.output
    for client in ("client/0", "client/1"):
        assert re.search(rf"{client}: asked to stop, the last count is \d+", example.output)
    ready = example.output.index("Ready to accept connections")
    bye = example.output.index("ready to exit, bye bye")
    assert ready < example.output.index("client/0: ") < example.output.rindex("asked to stop, the last count") < bye


def test_queue_finishes_every_task_that_has_begun(start: Start, port: int) -> None:
    example = start("examples/queue/config.yaml", REDIS_PORT=str(port))
    example.wait_for(r"task \w+ begun.*task \w+ done.*task \w+ begun\n[^\n]*$", timeout=60)
    assert example.stop(timeout=60) == 0, example.output
    begun = re.findall(r"task (\w+) begun", example.output)
    done = re.findall(r"task (\w+) done", example.output)
    assert sorted(begun) == sorted(done)
    assert len(begun) >= 2


def test_queue_finishes_them_behind_a_shell_too(start: Start, port: int, root: Path, tmp_path: Path) -> None:
    """The shell is gone at once; the consumer has the rest of the stop, and nobody else signals its children."""
    folder = shutil.copytree(root / "examples/queue", tmp_path / "queue")
    config = folder / "config.yaml"
    plain = '[celery, -A, tasks, worker, --concurrency, "2", --loglevel, warning]'
    shell = "[sh, -c, 'true && celery -A tasks worker --concurrency 2 --loglevel warning']"
    assert plain in config.read_text()
    config.write_text(config.read_text().replace(plain, shell))
    example = start(config, REDIS_PORT=str(port))
    example.wait_for(r"task \w+ begun.*task \w+ done.*task \w+ begun\n[^\n]*$", timeout=60)
    assert example.stop(timeout=60) == 0, example.output
    begun = re.findall(r"task (\w+) begun", example.output)
    assert sorted(begun) == sorted(re.findall(r"task (\w+) done", example.output))
    assert "WorkerLostError" not in example.output
    assert "left_processes" in example.output
