"""Loggers for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.logger.harness import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def start() -> Iterator[Callable[..., Logger]]:
    """`start(...)` starts a logger; each has to have complained of nothing."""
    loggers: list[Logger] = []

    def begin(**options: Any) -> Logger:
        loggers.append(Logger(**options))
        return loggers[-1]

    yield begin
    stories = [logger.close() for logger in loggers]
    assert not any(stories), stories


@pytest.fixture
def logger(start: Callable[..., Logger]) -> Logger:
    return start()
