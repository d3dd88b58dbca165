"""The client of the end-to-end tests counts what is lost, and the readers of what kubectl says read it right."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client
from tests.e2e.cluster import Ending, documents, split_image

CLIENT = Path(__file__).with_name("client.py")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi\n"

Serve = Callable[[socket.socket, int], None]


@contextmanager
def server(serve: Serve) -> Iterator[int]:
    """Hand every connection to `serve`, one after the other, with its number; yield the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:

        def accept() -> None:
            number = 0
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed
                    return
                with connection:
                    serve(connection, number)
                number += 1

        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def result(port: int, oneshot: int, keep: int, enough: threading.Event) -> dict[str, Any]:
    """Load the port until there is enough; what the client counted."""
    command = [sys.executable, str(CLIENT), "127.0.0.1", *map(str, (port, oneshot, keep))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert enough.wait(20)
        client.terminate()
        told, _ = client.communicate(timeout=20)
    counted: dict[str, Any] = json.loads(told.splitlines()[-1])
    return counted


def answer(connection: socket.socket, data: bytes = OK) -> bool:
    """Answer one request; False if there is none."""
    if not connection.recv(4096):
        return False
    connection.sendall(data)
    return True


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def test_every_answer_is_counted() -> None:
    enough = threading.Event()
    served = []

    def serve(connection: socket.socket, number: int) -> None:
        if answer(connection):
            served.append(number)
        if number == 20:
            enough.set()

    with server(serve) as port:
        counted = result(port, 1, 0, enough)
    assert counted["failed"] == {}
    assert counted["oneshot"] == counted["answers"]["hi"] == len(served)
    assert counted["retried"] == counted["kept"] == 0


def test_a_connection_is_kept_and_an_idle_close_is_no_failure() -> None:
    enough = threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        turns = 0
        while (number == 3 or turns < 5) and answer(connection):
            turns += 1
            if number == 3:
                enough.set()

    with server(serve) as port:
        counted = result(port, 0, 1, enough)
    assert counted["failed"] == {}
    assert counted["kept"] >= 15
    assert counted["retried"] == 3


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(b"", "closed", id="closed without an answer"),
        pytest.param(OK[:-1], "closed", id="closed amid the body"),
        pytest.param(OK[:20], "closed", id="closed amid the head"),
        pytest.param(OK.replace(b"200", b"503"), "status", id="another status"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", "no length", id="no length"),
        pytest.param(None, "reset", id="reset"),
    ],
)
@pytest.mark.parametrize("threads", [(1, 0), (0, 1)], ids=["new connection", "kept connection"])
def test_what_is_lost_is_counted(data: bytes | None, kind: str, threads: tuple[int, int]) -> None:
    enough = threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        if number == 1:  # the first request of its connection, so none that may be made again
            if data is None:
                connection.recv(4096)
                reset(connection)
            else:
                answer(connection, data)
        else:
            answer(connection, OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        if number == 5:
            enough.set()

    with server(serve) as port:
        counted = result(port, *threads, enough)
    assert counted["failed"] == {kind: 1}, counted
    assert counted["retried"] == 0
    assert len(counted["told"]) == 1


def test_an_answer_that_is_cut_on_a_kept_connection_is_lost() -> None:
    enough = threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        if answer(connection) and number == 0:
            answer(connection, OK[:-1])
        if number == 1:
            enough.set()

    with server(serve) as port:
        counted = result(port, 0, 1, enough)
    assert counted["failed"] == {"closed": 1}, counted


def test_a_refused_connection_is_counted() -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        client = Client("127.0.0.1", bound.getsockname()[1], 0.001)
        threads = [threading.Thread(target=work) for work in (client.oneshot, client.keep)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while client.failed["refused"] < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
        client.stopping.set()
        for thread in threads:
            thread.join()
    assert set(client.failed) == {"refused"}
    assert client.counts == {"oneshot": 0, "kept": 0, "retried": 0}
    assert not client.answers


def test_documents_are_read_as_they_come() -> None:
    text = '{"a": 1}\n{\n "b": {"c": "}{"}\n}\n{"d": 2}'
    for size in (1, 7, 100):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert list(documents(pieces)) == [{"a": 1}, {"b": {"c": "}{"}}, {"d": 2}]


def test_the_end_of_a_pod_is_read() -> None:
    state = {"terminated": {"exitCode": 0, "message": "bye", "finishedAt": "2026-01-01T00:00:08Z"}}
    pod = {
        "metadata": {"name": "web-1", "deletionTimestamp": "2026-01-01T00:00:09Z", "deletionGracePeriodSeconds": 0},
        "status": {"containerStatuses": [{"name": "web", "restartCount": 0, "state": state}]},
    }
    ending = Ending.of(pod, "2026-01-01T00:00:30Z")
    assert ending == Ending("web-1", [0], 0, ["bye"], -22.0)
    assert ending.in_good_order
    assert not Ending("web-1", [0, 137], 0, [], -22.0).in_good_order
    assert not Ending("web-1", [0], 1, [], -22.0).in_good_order
    assert not Ending("web-1", [0], 0, [], 0.0).in_good_order
    del pod["status"]
    assert not Ending.of(pod, "2026-01-01T00:00:30Z").in_good_order  # nobody knows


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("web", ("web", "latest")),
        ("example/web:1", ("example/web", "1")),
        ("localhost:5000/web", ("localhost:5000/web", "latest")),
        ("localhost:5000/web:2", ("localhost:5000/web", "2")),
    ],
)
def test_the_name_of_an_image_is_split(image: str, parts: tuple[str, str]) -> None:
    assert split_image(image) == parts
