"""The two programs that the chart hands to an interpreter in the cluster."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from tests.helm.harness import manifests, one, pod
from tests.system.live import FAST, Live, started

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.conftest import Start

PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable  # one that any user can execute


def run(command: list[str], *arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """As it stands in a manifest, but for the interpreter and what it is given."""
    assert command[0] == "/opt/entrypoint/libexec/python3"
    words = [PYTHON, *command[1:5], *arguments]
    assert words[1:4] == ["-I", "-S", "-c"]
    return subprocess.run(words, user=user, capture_output=True, text=True, timeout=60, check=False)


def test_the_test_of_a_release_asks_a_master(start: Start, entrypoint: str, tmp_path: Path) -> None:
    live = Live(start, entrypoint, tmp_path)
    master = live.start(
        f"""
        observer: {{bind: "127.0.0.1:0"}}
        shutdown: {{drain_delay: 60s}}
        pools: {{web: {{command: [sleep, '1000'], {FAST}}}}}
        """
    )
    host, _, port = master.wait_for("observer_listens")["bind"].rpartition(":")
    started(master, 1)
    command = one(manifests("default"), "Pod")["spec"]["containers"][0]["command"]
    assert command[5:] == ["web-entrypoint-observer", "9180", "60"]
    done = run(command, host, port, "30")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{path} of {host}:{port} is as it should be" for path in ("/readyz", "/metrics")
    ]
    master.send(signal.SIGTERM)
    master.wait_for("shutdown")
    done = run(command, host, port, "0")
    assert done.returncode == 1
    assert f"cannot get /readyz of {host}:{port}: 503 " in done.stderr
    master.stop(signal.SIGINT)


def test_the_test_of_a_release_fails_when_nobody_is_there() -> None:
    command = one(manifests("default"), "Pod")["spec"]["containers"][0]["command"]
    done = run(command, "127.0.0.1", "1", "0")
    assert done.returncode == 1
    assert done.stderr.startswith("cannot get /readyz of 127.0.0.1:1: 0 ")


def test_an_error_that_sounds_well_is_none() -> None:
    command = one(manifests("default"), "Pod")["spec"]["containers"][0]["command"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        answer = threading.Thread(target=refuse, args=[server])
        answer.start()
        done = run(command, "127.0.0.1", str(server.getsockname()[1]), "0")
        answer.join()
    assert done.returncode == 1
    assert ": 503 it is not ok" in done.stderr


def refuse(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\n\r\nit is not ok")


def test_the_entrypoint_is_copied_into_a_volume_of_somebody_else(open_path: Path) -> None:
    source, target = open_path / "source", open_path / "target"
    (source / "bin").mkdir(parents=True)
    (source / "bin/entrypoint").write_text("#!/bin/sh\n")
    (source / "bin/entrypoint").chmod(0o755)
    (source / "lib/deep").mkdir(parents=True)
    (source / "lib/deep/file").write_text("content")
    target.mkdir()
    target.chmod(0o777)  # as an emptyDir
    user = 10001 if os.getuid() == 0 else None
    (inject,) = (each for each in pod(manifests("inject"))["initContainers"] if each["name"] == "inject")
    assert inject["command"][5:] == ["/opt/entrypoint", "/inject"]
    for _ in range(2):  # the kubelet may run it again
        done = run(inject["command"], str(source), str(target), user=user)
        assert (done.returncode, done.stderr) == (0, "")
    assert (target / "lib/deep/file").read_text() == "content"
    assert os.access(target / "bin/entrypoint", os.X_OK)
