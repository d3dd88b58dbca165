"""Every example starts, visibly works, and ends with exit code 0 on TERM."""

from __future__ import annotations

import os
import re
import selectors
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

    def __init__(self, entrypoint: str, config: Path, env: dict[str, str]) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.process = subprocess.Popen(
            [entrypoint, "run", "-c", config.name],
            cwd=config.parent,
            env={**os.environ, "PATH": path, **env},
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

    def stop(self, timeout: float = 30) -> int:
        self.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while self.read(deadline):
            pass
        return self.process.wait(timeout)


@pytest.fixture
def start(entrypoint: str, root: Path) -> Iterator[Start]:
    examples = []

    def begin(config: str, **env: str) -> Example:
        examples.append(Example(entrypoint, root / config, env))
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


def ask_until(port: int, workers: set[str], timeout: float = 30) -> dict[str, int]:
    """Ask the web server again and again until each of the workers has answered; return their pids."""
    seen: dict[str, int] = {}
    deadline = time.monotonic() + timeout
    while not workers <= seen.keys():
        assert time.monotonic() < deadline, f"only {sorted(seen)} answered"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            match = re.fullmatch(r"hello from (\S+), pid (\d+)\n", answer.read().decode())
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
