"""Fixtures that every kind of test may use."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A shell starts what runs in its background with these ignored, and so would be everything that is started here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n`: a file stays in one process, and all tests with containers do. Most tests wait most of the time."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder != "unit":
            item.add_marker(pytest.mark.xdist_group("docker" if folder == "docker" else str(item.path)))


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


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """A folder of the test's own that other users can get at, too."""
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(0o755)
        if folder.name.startswith("pytest-of-"):
            break
    return tmp_path
