"""Observers for tests."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.observer.harness import Observer

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.observer.harness import StartObserver


@pytest.fixture
def start() -> Iterator[StartObserver]:
    """`start(...)` starts an observer; each has to have written nothing and to end with its channel."""
    observers: list[Observer] = []

    def begin(*sockets: socket.socket) -> Observer:
        observers.append(Observer(*sockets))
        return observers[-1]

    yield begin
    wrong = [observer.close() for observer in observers]
    assert not any(wrong), wrong


@pytest.fixture
def observer(start: StartObserver) -> Observer:
    return start()


@pytest.fixture(scope="module")
def shared() -> Iterator[Observer]:
    """An observer for tests that leave it as it was."""
    one = Observer()
    yield one
    assert not one.close()


@pytest.fixture
def short_path() -> Iterator[str]:
    """For a unix socket: pytest's own folders can be too long."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"{folder}/s"
