"""How values and files get in: what is resolved in them, and what is read when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.system.live import FAST, Live, sleep

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.conftest import Start

SECRET = "a$(HOME)b$$(c${d"


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:
    return Live(start, entrypoint, tmp_path)


def test_a_password_reaches_a_worker_and_its_commands_as_it_is(start: Start, open_path: Path) -> None:
    said = open_path / "said"
    master = start(
        f"""
        pools:
          web:
            command: [sh, -c, 'echo "SAYS $1 $PW $OTHER $2"; exec sleep 1000', x, "${{SECRET}}", $(ENTRYPOINT_SLOT)]
            env: {{PW: "${{SECRET}}"}}
            ready: {{exec: [sh, -c, 'echo "$1" > {said}', x, "${{SECRET}}"]}}
            lifecycle: {{pre_stop: [sh, -c, 'echo "HOOK $1"', x, "${{SECRET}}"]}}
        """,
        env={"SECRET": SECRET, "ENTRYPOINT_POOLS__WEB__ENV__OTHER": SECRET, "HOME": "/root"},
    )
    master.wait_for_line(r"^SAYS ")
    assert [line for line in master.said if line.startswith("SAYS ")] == [f"SAYS {SECRET} {SECRET} {SECRET} 0"]
    master.wait_for("worker_ready")
    assert said.read_text() == f"{SECRET}\n"
    assert master.stop()[0] == 0
    assert f"HOOK {SECRET}" in master.said
    assert SECRET not in json.dumps(master.events)


def test_a_configuration_from_a_pipe_is_read_once(start: Start) -> None:
    reader, writer = os.pipe()
    os.write(writer, f"pools: {{web: {sleep(1000)}}}\nreload: {{watch: true}}\n".encode())
    os.close(writer)
    master = start(args=["-c", "-"], stdin=reader)
    os.close(reader)
    pid = master.wait_for("worker_ready")["pid"]
    reason = "reload.watch: there is no file to follow: the configuration came from standard input or a pipe"
    assert master.wait_for("config_warning")["reason"] == reason
    master.send(signal.SIGHUP)
    error = master.wait_for("reload_failed")["error"]
    assert error == "cannot load -: not a regular file: what came through a pipe is gone once it was read"
    assert not master.all("worker_exited", pid=pid)
    assert master.stop()[0] == 0


def test_a_redirected_file_is_read_again(start: Start, open_path: Path) -> None:
    file = open_path / "c.yaml"
    file.write_text(f"pools: {{web: {sleep(1000)}}}\n")
    with file.open() as stdin:
        master = start(args=["-c", "/dev/stdin"], stdin=stdin)
    master.wait_for("worker_ready")
    file.write_text(f"pools: {{web: {sleep(1000)}, more: {sleep(1000)}}}\n")
    master.send(signal.SIGHUP)
    master.wait_for("worker_ready", pool="more")
    assert master.stop()[0] == 0


def test_check_reads_a_pipe(entrypoint: str, tmp_path: Path) -> None:
    text = "x-stop: &stop {timeout: 5s}\npools: {web: {command: [a], stop: *stop}}\n"
    for path in ("-", "/dev/stdin"):
        command = [entrypoint, "check", "--json", "-c", path]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=True)
        assert json.loads(done.stdout)["pools"]["web"]["stop"]["timeout"] == "5s"
    done = subprocess.run(
        ["bash", "-c", f"exec {entrypoint} check -c <(echo 'pools: {{web: {{command: a b}}}}')"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert done.stderr.endswith("pools.web.command: list of words expected, not a single value: write [a, b]\n")


def test_a_relative_path_leads_through_a_link_that_is_turned(live: Live, tmp_path: Path, start: Start) -> None:
    for release, size in (("one", 1), ("two", 2)):
        (tmp_path / release).mkdir()
        (tmp_path / release / "c.yaml").write_text(
            live.text(f"pools: {{web: {sleep(1000, f'workers: {size}, {FAST}')}}}")
        )
    current = tmp_path / "current"
    current.symlink_to("one")
    live.master = start(args=["-c", "c.yaml", "--set", "control.enabled=true"], cwd=current, env={"PWD": str(current)})
    assert live.master.wait_for("master_started")["config"] == f"{current}/c.yaml"
    live.settled(size=1)
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(current)
    live.master.send(signal.SIGHUP)
    live.settled(size=2)
    assert live.master.stop()[0] == 0


def test_a_real_time_signal_by_its_name(live: Live) -> None:
    master = live.start(
        f"""
        pools: {{web: {{command: [sh, -c, 'trap "echo DONE; exit" RTMIN+4; echo UP; while :; do sleep 0.1; done'],
                        stop: {{signal: rtmin+4}}, {FAST}}}}}
        signals: {{SIGRTMIN+3: shutdown}}
        """.replace("[sh,", "[bash,")
    )
    master.wait_for_line("^UP")
    assert live.run("signal", "web", "sigrtmin+4") == (0, "", "")
    master.wait_for_line("^DONE")
    code, _ = master.stop(signal.SIGRTMIN + 3)
    assert code == 0
    assert master.all("shutdown")


@pytest.mark.skipif(os.geteuid() != 0, reason="another user takes root")
@pytest.mark.parametrize(("user", "groups"), [("daemon", "1"), ("daemon:4242", "4242")])
def test_groups_of_the_container_are_not_for_another_user(start: Start, user: str, groups: str) -> None:
    """As with fsGroup: a pool gets at such a volume where that is said."""
    master = start(
        f"pools: {{web: {{command: [sh, -c, 'echo GROUPS $(id -G); exec sleep 1000'], user: '{user}'}}}}",
        wrap=("setpriv", "--groups", "0,4242,4343"),
        cwd="/",
    )
    assert master.wait_for_line("^GROUPS (.*)")[1] == groups
    assert master.stop()[0] == 0
