"""The image, built once, and containers that are read with deadlines and removed afterwards."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest
from docker.errors import BuildError, DockerException

if TYPE_CHECKING:
    import socket

    from docker.models.containers import Container

BASE_IMAGE = os.environ.get("TEST_BASE_IMAGE", "entrypoint-base:bookworm")
CONFIG = "/etc/entrypoint/config.yaml"

Run = Callable[..., "Box"]
Build = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env(timeout=60)
    except DockerException as error:
        # Without CI this is a convenience for people who have no engine at hand.
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"cannot reach a Docker engine: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def base(engine: docker.DockerClient) -> str:
    if not engine.images.list(name=BASE_IMAGE):
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"cannot find the image {BASE_IMAGE}: scripts/base-image")
    return BASE_IMAGE


@pytest.fixture(scope="session")
def build(engine: docker.DockerClient) -> Build:
    """Builds a folder's Dockerfile; returns the image's id, which unlike a tag can never be someone else's."""

    def start(folder: Path, tag: str, **arguments: str) -> str:
        try:
            image, _ = engine.images.build(path=str(folder), tag=tag, rm=True, network_mode="host", buildargs=arguments)
        except BuildError as error:
            pytest.fail("".join(str(line.get("stream", line)) for line in error.build_log))
        assert image.id is not None
        return image.id

    return start


@pytest.fixture(scope="session")
def image(build: Build, base: str, root: Path) -> str:
    return build(root, "entrypoint-test", BASE_IMAGE=base)


class Box:
    """A container: its output as it comes, and its end."""

    def __init__(self, container: Container, *, tty: bool) -> None:
        self.container = container
        self.tty = tty
        self.output = ""
        self._raw = b""
        self._stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1, "logs": 1})
        self._socket: socket.socket = self._stream._sock  # type: ignore[union-attr] # over the local socket it has one
        container.start()

    def read(self, deadline: float) -> bool:
        """Read what comes next; False at the end of the output."""
        if not select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError(f"nothing more was printed after:\n{self.output}")
        piece = self._socket.recv(65536)
        if self.tty:
            self.output += piece.decode(errors="replace")
            return bool(piece)
        self._raw += piece
        while len(self._raw) >= 8:  # frames: stream, three zero bytes, length
            end = 8 + struct.unpack(">4xI", self._raw[:8])[0]
            if len(self._raw) < end:
                break
            self.output += self._raw[8:end].decode(errors="replace")
            self._raw = self._raw[end:]
        return bool(piece)

    def wait_for(self, pattern: str, timeout: float = 20) -> re.Match[str]:
        """Wait until the whole output matches."""
        deadline = time.monotonic() + timeout
        while (match := re.search(pattern, self.output, re.DOTALL)) is None:
            if not self.read(deadline):
                raise EOFError(f"{pattern} never came, the container ended with:\n{self.output}")
        return match

    def wait_for_all(self, *patterns: str, timeout: float = 20) -> None:
        for pattern in patterns:
            self.wait_for(pattern, timeout)

    def send(self, text: str) -> None:
        self._socket.sendall(text.encode())

    def wait(self, timeout: float = 20) -> int:
        """Read to the end; return the exit code."""
        deadline = time.monotonic() + timeout
        while self.read(deadline):
            pass
        code: int = self.container.wait(timeout=timeout)["StatusCode"]
        return code

    def wait_until_term_is_kept(self, timeout: float = 20) -> None:
        """Wait until the launcher has blocked SIGTERM, or the master catches it.

        Until then, for about a millisecond after the exec, the kernel throws away what PID 1 has not asked for; no
        program can change that.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.container.reload()
            process = Path(f"/proc/{self.container.attrs['State']['Pid']}")
            try:
                if b"entrypoint" not in (process / "cmdline").read_bytes():  # the container runtime's own set-up
                    continue
                lines = (process / "status").read_text().splitlines()
            except FileNotFoundError:
                continue
            masks = {
                name: int(bits, 16)
                for name, _, bits in (line.partition(":\t") for line in lines if "Sig" in line[:3])
                if name in ("SigBlk", "SigCgt")
            }
            if (masks["SigBlk"] | masks["SigCgt"]) >> (signal.SIGTERM - 1) & 1:
                return
        raise TimeoutError("SIGTERM is neither blocked nor caught")

    def stop(self, timeout: int = 10) -> tuple[int, float]:
        """`docker stop`; return the exit code and the seconds that it took."""
        began = time.monotonic()
        self.container.stop(timeout=timeout)
        seconds = time.monotonic() - began
        return self.wait(), seconds

    def close(self) -> None:
        self._stream.close()
        self._socket.close()
        self.container.remove(force=True)


@pytest.fixture
def run(engine: docker.DockerClient, image: str, tmp_path: Path) -> Iterator[Run]:
    """`docker run IMAGE ARGUMENTS...`; `config` becomes the file that the image looks for."""
    boxes = []

    def start(*arguments: str, config: str | None = None, of: str = image, **options: Any) -> Box:
        if config is not None:
            path = tmp_path / "config.yaml"
            path.write_text(config)
            path.chmod(0o644)  # whatever the umask: other users read it
            options.setdefault("volumes", {})[str(path)] = {"bind": CONFIG, "mode": "ro"}
        tty = options.get("tty", False)
        container = engine.containers.create(of, list(arguments), **options)
        boxes.append(Box(container, tty=tty))
        return boxes[-1]

    yield start
    for box in boxes:
        box.close()
