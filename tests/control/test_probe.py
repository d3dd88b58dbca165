"""`entrypoint probe`, for a HEALTHCHECK and exec probes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.cli.probe import command_line, init_mode
from tests.control.conftest import BASE_ENV, Loop

# Process 1 of a namespace without any control socket.
ALONE = "mount -t tmpfs none /run && mount -t tmpfs none /dev/shm && exec"
HEAVY = {
    "argparse",
    "typing",
    "socket",
    "tabulate",
    "yaml",
    "subprocess",
    "asyncio",
    "datetime",
    "inspect",
    "structlog",
}


@pytest.mark.parametrize("what", ["live", "ready", "startup"])
def test_yes(loop: Loop, entrypoint: str, what: str) -> None:
    ran = loop.run(entrypoint, "probe", what, "--socket", loop.control.path)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert loop.requests[0][1] == {"ask": "ping" if what == "live" else what}


@pytest.mark.parametrize(("what", "no"), [("ready", "not ready"), ("startup", "not started")])
def test_no_with_the_reason(loop: Loop, entrypoint: str, what: str, no: str) -> None:
    loop.replies[what] = {"ok": False, "reason": "web: 0 of 1 ready\x1b"}
    ran = loop.run(entrypoint, "probe", what, "--socket", loop.control.path)
    assert (ran.code, ran.out, ran.err) == (1, "", f"entrypoint: {no}: web: 0 of 1 ready?\n")


def test_a_refusal_is_a_no(loop: Loop, entrypoint: str) -> None:
    loop.replies["ready"] = {"ok": False, "error": "cannot ready: internal error"}
    ran = loop.run(entrypoint, "probe", "ready", "--socket", loop.control.path)
    assert (ran.code, ran.err) == (1, "entrypoint: not ready: cannot ready: internal error\n")


def test_a_master_that_does_not_answer_is_not_live(loop: Loop, entrypoint: str) -> None:
    loop.handle = lambda *_: None
    ran = loop.run(entrypoint, "probe", "live", "--socket", loop.control.path)
    assert (ran.code, ran.out, ran.err) == (1, "", "entrypoint: not live: no answer within 1 s\n")


@pytest.mark.parametrize(("what", "no"), [("live", "not live"), ("ready", "not ready"), ("startup", "not started")])
def test_no_socket_where_it_was_said_to_be(loop: Loop, entrypoint: str, what: str, no: str) -> None:
    ran = loop.run(entrypoint, "probe", what, "--socket", "/no.sock")
    assert (ran.code, ran.err) == (1, f"entrypoint: {no}: /no.sock: no such file or directory\n")


# -- init mode -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "yes"),
    [
        ("/opt/entrypoint/libexec/python3 -I -S /opt/entrypoint/bin/entrypoint run -- redis-server", True),
        ("/v/bin/python3.11 /v/bin/entrypoint run sleep 9", True),
        ("/usr/bin/python -I -S /v/lib/site-packages/entrypoint/__main__.py run --init bash", True),
        ("python -m entrypoint run -- sh", True),
        ("entrypoint run --workers 2 -- sh", True),
        ("entrypoint run -c /c.yaml", False),
        ("entrypoint run -c /c.yaml -- sh", False),
        ("entrypoint run", False),
        ("entrypoint run --nope sh", False),
        ("entrypoint check", False),
        ("entrypoint", False),
        ("tini -- entrypoint run -- sh", False),
        ("sh -c entrypoint run", False),
        ("python3 app.py run -- sh", False),
        ("python3", False),
        ("", False),
    ],
)
def test_which_command_lines_are_init_mode(monkeypatch: pytest.MonkeyPatch, line: str, *, yes: bool) -> None:
    monkeypatch.setenv("ENTRYPOINT_CONFIG", "")
    monkeypatch.setattr("entrypoint.cli.run.DEFAULT_CONFIG", "/no/config.yaml")
    monkeypatch.setattr("entrypoint.config.location.DEFAULT_CONFIG", "/no/config.yaml")
    assert init_mode(line.split()) is yes


def test_a_configuration_in_the_environment_is_no_init_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTRYPOINT_CONFIG", "/c.yaml")
    assert not init_mode(["entrypoint", "run", "sh"])
    assert init_mode(["entrypoint", "run", "--init", "sh"])


def test_the_command_line_of_a_process() -> None:
    assert (
        command_line(os.getpid()) == [os.fsdecode(a) for a in Path("/proc/self/cmdline").read_bytes().split(b"\0")][:-1]
    )
    assert command_line(4_194_305) == []


def in_namespace(command: str) -> subprocess.CompletedProcess[str]:
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", f"{ALONE} {command}"]
    env = {k: v for k, v in BASE_ENV.items() if k != "XDG_RUNTIME_DIR"}
    return subprocess.run(argv, env=env, cwd="/", capture_output=True, text=True, timeout=30, check=False)


def test_without_a_socket_process_1_in_init_mode_is_live_but_not_ready(entrypoint: str) -> None:
    assert in_namespace(f"{entrypoint} run -- {entrypoint} probe live").returncode == 0
    ran = in_namespace(f"{entrypoint} run -- {entrypoint} probe ready")
    assert ran.returncode == 1
    assert "entrypoint: not ready: no control socket in /run/entrypoint, /dev/shm/entrypoint-0\n" in ran.stderr


def test_without_a_socket_another_process_1_is_not_live(entrypoint: str) -> None:
    ran = in_namespace(f"sh -c '{entrypoint} probe live; exit $?'")
    assert ran.returncode == 1
    assert ran.stderr == "entrypoint: not live: no control socket in /run/entrypoint, /dev/shm/entrypoint-0\n"


# -- its weight ----------------------------------------------------------------------------------------------


def test_it_imports_little() -> None:
    code = "import entrypoint.cli.probe, sys; print(*sys.modules)"
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = set(subprocess.check_output([sys.executable, "-S", "-c", code], env=env, text=True).split())
    assert not loaded & HEAVY
