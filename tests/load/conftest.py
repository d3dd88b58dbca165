"""A master under the load of the bench's client, which counts every request."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.conftest import _adopt_orphans, start  # noqa: F401 - fixtures
from tests.system.live import Live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.traffic import Load
    from tests.system.conftest import Start


@pytest.fixture(scope="session")
def compiled(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`compiled("server.c")` is the path of that program of the bench."""
    folder = tmp_path_factory.mktemp("compiled")

    def find(source: str) -> Path:
        program = folder / Path(source).stem
        if not program.exists():
            subprocess.run(["cc", "-O2", "-o", program, root / "bench" / source], check=True)
        return program

    return find


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number: int = sock.getsockname()[1]
        return number


@pytest.fixture
def load(root: Path, compiled: Callable[[str], Path], tmp_path: Path, port: int) -> Iterator[Callable[..., Load]]:
    """`load(oneshot=..., keep=..., think_ms=...)` begins to load the port."""
    # The bench is no part of the wheel that is tested, and its folder must not hide the wheel.
    spec = importlib.util.spec_from_file_location("bench_traffic", root / "bench/traffic.py")
    assert spec is not None
    assert spec.loader is not None
    traffic = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = traffic
    spec.loader.exec_module(traffic)
    begun: list[Load] = []

    def begin(**plan: Any) -> Load:
        begun.append(traffic.Load(compiled("load.c"), tmp_path, port, traffic.Plan(**plan)))
        return begun[-1]

    yield begin
    for one in begun:
        one.kill()


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:  # noqa: F811 - the fixture
    return Live(start, entrypoint, tmp_path)
