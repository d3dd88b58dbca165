"""What a kubelet and a service do to a container: late news of its end, a ConfigMap that changes, tight permissions."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docker.conftest import Box, Build, Run

PORT, OBSERVER = 8000, 9180
GRACE = 15
LATE = 1.5  # seconds after TERM until the service stops sending connections; the drain delay is longer

Web = Callable[..., "Box"]


def config(greeting: str = "first", **more: Any) -> str:
    """The server of the end-to-end tests; JSON is YAML."""
    pool = {
        "command": ["python3", "/app/server.py"],
        "workers": 2,
        "sockets": ["http"],
        "ready": {"when": "accepting"},
        "env": {"GREETING": greeting},
        "stop": {"timeout": "5s"},
        "restart": {"min_uptime": "0s"},
    }
    shutdown = {"drain_delay": "2s", "grace_period": f"{GRACE}s"}
    return json.dumps({"pools": {"web": pool}, "sockets": {"http": {"bind": f":{PORT}"}}, "shutdown": shutdown, **more})


def address(box: Box) -> str:
    box.container.reload()
    found: str = box.container.attrs["NetworkSettings"]["IPAddress"]
    return found


def get(box: Box, path: str, port: int = OBSERVER) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address(box), port, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


class ConfigMap:
    """A folder as the kubelet fills it: each version is a folder of its own, and a link that is replaced names it."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self._turn = 0
        folder.mkdir()
        folder.chmod(0o755)
        self.swap(text)
        (folder / "config.yaml").symlink_to("..data/config.yaml")

    def swap(self, text: str) -> None:
        old = os.readlink(self.folder / "..data") if self._turn else ""
        self._turn += 1
        new = self.folder / f"..2026_01_01_{self._turn}"
        new.mkdir()
        new.chmod(0o755)
        (new / "config.yaml").write_text(text)
        (new / "config.yaml").chmod(0o644)
        (self.folder / "..data_tmp").symlink_to(new.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        if old:
            shutil.rmtree(self.folder / old)


@pytest.fixture
def web(run: Run, root: Path, tmp_path: Path) -> Web:
    """`web()` is a container that serves; its configuration is a mounted ConfigMap."""

    def start(configmap: ConfigMap | None = None, volumes: dict[str, Any] | None = None, **options: Any) -> Box:
        configmap = configmap or ConfigMap(tmp_path / f"configmap-{time.monotonic_ns()}", config())
        mounts = {
            str(root / "tests/e2e"): {"bind": "/app", "mode": "ro"},
            str(configmap.folder): {"bind": "/etc/entrypoint", "mode": "ro"},
            **(volumes or {}),
        }
        box = run(volumes=mounts, **options)
        box.wait_for('"pool_ready"')
        return box

    return start


class Balancer:
    """What a service is to its clients: each new connection goes to the next endpoint, whatever has become of it."""

    def __init__(self, endpoints: list[str]) -> None:
        self.endpoints = endpoints
        self.connections = dict.fromkeys(endpoints, 0)
        self._turn = 0
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._connect, "127.0.0.1", 0, backlog=256))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        endpoint = self.endpoints[self._turn % len(self.endpoints)]
        self.connections[endpoint] += 1
        try:
            behind_reader, behind_writer = await asyncio.open_connection(endpoint, PORT)
        except OSError:
            writer.transport.abort()  # a reset
            return
        await asyncio.gather(self._pass(reader, behind_writer), self._pass(behind_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
        except ConnectionError:
            writer.transport.abort()

    def close(self) -> None:
        async def finish() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def balance() -> Iterator[Callable[[list[str]], Balancer]]:
    made: list[Balancer] = []

    def start(endpoints: list[str]) -> Balancer:
        made.append(Balancer(endpoints))
        return made[-1]

    yield start
    for balancer in made:
        balancer.close()


class Load:
    """The client of the end-to-end tests, which counts every request."""

    def __init__(self, root: Path, host: str, port: int) -> None:
        command = [sys.executable, str(root / "tests/e2e/client.py"), host, str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "loading\n"

    def end(self) -> dict[str, Any]:
        self.process.terminate()
        told, _ = self.process.communicate(timeout=30)
        counted: dict[str, Any] = json.loads(told)
        return counted


@pytest.fixture
def load(root: Path) -> Iterator[Callable[[str, int], Load]]:
    made: list[Load] = []

    def start(host: str, port: int) -> Load:
        made.append(Load(root, host, port))
        return made[-1]

    yield start
    for one in made:
        with suppress(ProcessLookupError):
            one.process.kill()
        one.process.communicate()


def test_no_request_is_lost_when_the_service_learns_late_of_the_end_of_a_pod(
    web: Web, balance: Callable[[list[str]], Balancer], load: Callable[[str, int], Load]
) -> None:
    boxes = [web(), web()]
    going, staying = map(address, boxes)
    balancer = balance([going, staying])
    client = load("127.0.0.1", balancer.port)
    before = balancer.connections[going]
    removed = threading.Timer(LATE, balancer.endpoints.remove, [going])
    removed.start()
    code, seconds = boxes[0].stop(timeout=GRACE)
    removed.join()
    # The connections that were kept through the one that is gone have moved to the other, and work.
    alone = balancer.connections[staying]
    deadline = time.monotonic() + 20
    while balancer.connections[staying] < alone + 50:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    counted = client.end()

    assert not counted["failed"], counted
    assert code == 0, boxes[0].output
    assert LATE < seconds < GRACE
    assert balancer.connections[going] > before + 50  # while it was about to go
    assert counted["kept"] > 100
    assert boxes[1].stop()[0] == 0


def test_a_changed_configmap_is_rolled_out_and_no_request_is_lost(
    web: Web, load: Callable[[str, int], Load], tmp_path: Path
) -> None:
    configmap = ConfigMap(tmp_path / "configmap", config("first", reload={"watch": True}))
    box = web(configmap)
    client = load(address(box), PORT)
    configmap.swap("pools: {web: {comand: [false]}}")  # a mistake changes nothing
    box.wait_for('"reload_failed"')
    configmap.swap(config("second", reload={"watch": True}))
    box.wait_for('"rollout_completed"')
    box.wait_for(r'("worker_exited"[^\n]*"reason": "rollout".*){2}')  # who is about to go still serves
    assert get(box, "/", PORT)[1].startswith("second ")
    counted = client.end()

    assert not counted["failed"], counted
    assert {answer.split()[0] for answer in counted["answers"]} == {"first", "second"}
    assert box.stop()[0] == 0


def test_all_of_it_works_under_the_restricted_standard_as_a_user_that_nobody_knows(web: Web, tmp_path: Path) -> None:
    message = tmp_path / "message"  # the kubelet mounts it, and shows what is written into it
    message.touch()
    message.chmod(0o666)
    box = web(
        volumes={str(message): {"bind": "/dev/termination-log", "mode": "rw"}},
        user="1000680000:0",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    )
    assert get(box, "/", PORT)[0] == 200
    for path in ("/livez", "/readyz", "/startupz"):
        assert get(box, path) == (200, "ok\n")
    status, text = get(box, "/status")
    assert (status, json.loads(text)["pid"]) == (200, 1)
    assert 'entrypoint_pool_workers{pool="web",state="ready"} 2.0' in get(box, "/metrics")[1]
    assert box.container.exec_run(["entrypoint", "scale", "web", "3"]) == (0, b"")
    box.wait_for('"pool_resized"')
    assert box.container.exec_run(["entrypoint", "restart", "web", "--wait"]).exit_code == 0
    assert box.container.exec_run(["entrypoint", "probe", "ready"]).exit_code == 0

    box.container.kill("TERM")
    box.wait_for('"shutdown"')
    status, text = get(box, "/readyz")
    assert status == 503, text
    assert get(box, "/livez")[0] == 200
    assert get(box, "/", PORT)[0] == 200  # and goes on serving
    assert "entrypoint_master_draining 1.0" in get(box, "/metrics")[1]
    assert box.wait() == 0, box.output
    assert json.loads(message.read_text())


def test_the_image_of_the_end_to_end_tests_serves_and_loads(
    run: Run, build: Build, image: str, root: Path, tmp_path: Path
) -> None:
    made = build(root / "tests/e2e", "entrypoint-test-e2e", IMAGE=image)
    options: dict[str, Any] = {"of": made, "read_only": True, "cap_drop": ["ALL"]}
    server = run(config=config(), **options)
    server.wait_for('"pool_ready"')
    client = run("--", "python3", "/app/client.py", address(server), str(PORT), **options)
    client.wait_for("loading\n")
    ended = client.container.exec_run(["python3", "-c", "import os; os.kill(1, 15)"])  # as in a pod
    assert ended.exit_code == 0, ended.output
    assert client.wait() == 0, client.output
    counted = json.loads(client.output.splitlines()[-1])
    assert not counted["failed"], counted
    assert [answer.split()[0] for answer in counted["answers"]] == ["first"]
    assert server.stop()[0] == 0
