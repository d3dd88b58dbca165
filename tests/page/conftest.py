"""A browser, and a master with workers of every kind for it to look at."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.page.chromium import Browser, Tab
from tests.system.conftest import WORKER_ENV, Master
from tests.system.live import Live
from tests.system.observed import Observed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVIL = "<img src=x onerror=hacked=1><script>hacked=1</script>"

QUEUED = 5
LIVE = "document.getElementById('freshness').textContent.startsWith('live')"
COMPLETE = f"{LIVE} && document.querySelectorAll('.cells .ready').length === 5"

# Says what it is told to, and that it is ready as soon as the gate is open.
WORKER = f"""#!{sys.executable} -S
import os, select, socket, sys
_, gate, text = sys.argv
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect("\\0" + os.environ["NOTIFY_SOCKET"][1:])
sock.send(b"STATUS=" + text.encode())
while os.path.exists(gate):
    select.select([], [], [], 0.05)
sock.send(b"READY=1")
while True:
    sock.send(b"WATCHDOG=1")
    select.select([], [], [], 0.2)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number: int = sock.getsockname()[1]
        return number


def behaves(tab: Tab) -> None:
    origins = {url.split("/", 3)[2] for url in tab.requests if not url.startswith("data:")}
    assert len(origins) == 1, origins
    assert origins.pop().startswith("127.0.0.1:")
    assert not tab.complaints


class Site:
    """A master, and the page about it."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.master = live.master
        self.seen = Observed(self.master)
        self.origin = f"http://127.0.0.1:{self.seen.address[1]}"
        self.url = f"{self.origin}/"
        self.gate = live.file.with_name("gate")

    def open_gate(self) -> None:
        self.gate.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def begin(entrypoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Site]]:
    """`begin(config)` starts a master for all tests of the file. What system tests have would end the browser, too."""
    masters: list[Master] = []
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ENTRYPOINT_", "PYTEST"))}

    def begin(config: str) -> Site:
        folder = tmp_path_factory.mktemp("page")

        def start(text: str) -> Master:
            live.file.write_text(text)
            argv = [entrypoint, "run", "-c", str(live.file)]
            masters.append(Master(argv, cwd=folder, env={**env, **WORKER_ENV}))
            return masters[-1]

        live = Live(start, entrypoint, folder)
        live.start(config.replace("FOLDER", str(folder)))
        return Site(live)

    yield begin
    codes = [master.stop()[0] if master.process.returncode is None else 0 for master in masters]
    stories = [master.story() for master in masters]
    for master in masters:
        master.close()
    assert not any(codes), stories
    assert not any("Traceback" in story or '"bug"' in story for story in stories), stories


@pytest.fixture(scope="module")
def site(begin: Callable[[str], Site], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A busy one: heartbeats, hostile texts, a pool that fails, connections that nobody accepts."""
    worker = tmp_path_factory.mktemp("bin") / "worker"
    worker.write_text(WORKER)
    worker.chmod(0o755)
    port = free_port()
    config = f"""
        observer: {{bind: "127.0.0.1:0"}}
        pools:
          web:
            command: [{worker}, FOLDER/gate, "{EVIL}"]
            workers: 3
            sockets: [http]
            ready: {{when: notify}}
            heartbeat: {{timeout: 60s}}
            restart: {{min_uptime: 150ms}}
          calm: {{command: [sleep, "1000"], workers: 2, ready: {{after: 30ms}}}}
          broken: {{command: ["./{EVIL.replace("/", "")}"], critical: false}}
        sockets:
          http: {{bind: "127.0.0.1:{port}", backlog: 16}}
    """
    one = begin(config)
    with ExitStack() as clients:
        for _ in range(QUEUED):
            clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        yield one


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests of the file, since it takes seconds to start."""
    one = Browser(tmp_path_factory.mktemp("chromium"))
    yield one
    one.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """For a page that complains of nothing, and asks nobody but its own server for anything."""
    with Tab(browser) as one:
        yield one
        behaves(one)


@pytest.fixture(scope="module")
def open_page(browser: Browser, site: Site) -> Iterator[Tab]:
    """The page of the busy master, loaded once: it lives through all that the tests do."""
    with Tab(browser) as one:
        one.open(site.url)
        one.evaluate("window.untouched = true")
        yield one


@pytest.fixture
def page(open_page: Tab) -> Iterator[Tab]:
    """The same, live and complete, on a usual screen."""
    open_page.show()
    open_page.wait_for(COMPLETE)
    yield open_page
    behaves(open_page)
    assert open_page.evaluate("untouched"), "it was loaded again"


@pytest.fixture
def artifacts(root: Path) -> Path:
    """Where pictures are kept for people."""
    folder = Path(os.environ.get("ENTRYPOINT_TEST_ARTIFACTS") or root / "test-artifacts") / "page"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
