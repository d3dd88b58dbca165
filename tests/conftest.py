"""Fixtures that every kind of test may use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's top folder."""
    return ROOT


@pytest.fixture(scope="session")
def entrypoint() -> str:
    """The installed command, the one beside the interpreter that runs the tests."""
    command = Path(sys.executable).with_name("entrypoint")
    if not command.exists():
        pytest.fail(f"cannot find {command}: install the wheel into this environment, or use `make test`")
    return str(command)
