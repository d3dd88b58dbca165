"""Following the configuration file, and the process that reads it again."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.live import FAST, Live, command, end, reloaded, sleep

if TYPE_CHECKING:
    from tests.system.conftest import Master, Start

WITHOUT_INOTIFY = (
    "unshare", "--user", "--map-root-user",
    "sh", "-c", 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"', "sh",
)  # fmt: skip


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:
    return Live(start, entrypoint, tmp_path)


def config(seconds: int, more: str = "") -> str:
    return f"pools: {{web: {{command: [sleep, '{seconds}'], {FAST}{more}}}}}\nreload: {{watch: true}}\n"


class ConfigMap:
    """A folder that a kubelet fills."""

    def __init__(self, folder: Path, text: str) -> None:
        self.path = folder / "config.yaml"
        self._folder = folder
        self._turn = 0
        folder.mkdir()
        self.swap(text)
        self.path.symlink_to("..data/config.yaml")

    def swap(self, text: str) -> None:
        self._turn += 1
        new = self._folder / f"..2026_{self._turn}"
        new.mkdir()
        (new / "config.yaml").write_text(text)
        old = os.readlink(self._folder / "..data") if self._turn > 1 else ""
        (self._folder / "..data_tmp").symlink_to(new.name)
        (self._folder / "..data_tmp").rename(self._folder / "..data")
        if old:
            shutil.rmtree(self._folder / old)


@pytest.fixture
def followed(live: Live) -> Live:
    """A master that has followed its file once."""
    master = live.start(config(500))
    live.settled(size=1)
    live.write(config(1000))
    rolled_to(master, 2, 1000, live)
    return live


def rolled_to(master: Master, generation: int, seconds: int, live: Live) -> None:
    """The next rollout is the one to that generation, and its worker does what the file says."""
    assert master.wait_for("rollout_completed")["generation"] == generation
    (pid,) = live.settled(size=1)
    assert command(pid) == f"sleep {seconds}"


# -- following -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["written", "renamed"])
def test_an_edit_takes_effect(live: Live, how: str) -> None:
    master = live.start(config(1000))
    live.settled(size=1)
    for generation in (2, 3):
        text = config(generation * 1000)
        if how == "renamed":
            live.write(text)
        else:
            live.file.write_text(live.text(text))
        rolled_to(master, generation, generation * 1000, live)
    assert len(master.all("config_changed")) == 2
    assert len(master.all("rollout_started")) == 2
    assert master.stop()[0] == 0


def test_each_swap_of_a_configmap_takes_effect(live: Live, tmp_path: Path) -> None:
    volume = ConfigMap(tmp_path / "etc", live.text(config(1000)))
    master = live.start_file(volume.path)
    live.settled(size=1)
    for generation in (2, 3, 4):
        volume.swap(live.text(config(generation * 1000)))
        rolled_to(master, generation, generation * 1000, live)
    assert len(master.all("config_changed")) == 3
    assert master.stop()[0] == 0


def test_a_file_that_vanishes_changes_nothing_until_another_is_there(followed: Live) -> None:
    live, master = followed, followed.master
    old = live.settled(size=1)
    live.file.unlink()
    live.write(config(1000))
    live.file.touch()
    live.file.unlink()
    assert live.pids() == old
    live.write(config(2000))
    rolled_to(master, 3, 2000, live)
    assert len(master.all("config_changed")) == 2
    assert not master.all("reload_failed")
    assert master.stop()[0] == 0


def test_what_is_wrong_is_said_once_and_forgotten_with_the_next_good_edit(followed: Live) -> None:
    live, master = followed, followed.master
    old = live.settled(size=1)
    live.write("pools: {web: {comand: [true]}}")
    error = master.wait_for("reload_failed")["error"]
    assert error.startswith(f"cannot load {live.file}:2: ")
    master.wait_for("reload_failed")  # nor is there a command
    assert live.status()["config"]["error"].startswith(error)
    live.write("pools: [")
    assert "not YAML" in master.wait_for("reload_failed")["error"]
    assert live.pids() == old
    live.write(config(1000))  # as it was
    master.until(lambda: live.status()["config"]["error"] == "")
    assert live.pids() == old
    live.write(config(2000))
    rolled_to(master, 3, 2000, live)
    assert len(master.all("reload_failed")) == 3
    assert master.stop()[0] == 0


def test_many_edits_end_with_the_last(followed: Live) -> None:
    live, master = followed, followed.master
    live.settled(size=1)
    for turn in range(2000, 2200):
        live.write(config(turn))
    live.write(config(3000))
    master.until(lambda: live.status()["config"]["sha256"] == sha256(live.file.read_bytes()).hexdigest())
    (pid,) = live.settled(size=1)
    assert command(pid) == "sleep 3000"
    assert len(master.all("config_changed")) < 20
    assert master.stop()[0] == 0


def test_a_hup_and_the_edit_before_it_are_one_rollout(followed: Live) -> None:
    live, master = followed, followed.master
    live.settled(size=1)
    live.write(config(2000))
    master.send(signal.SIGHUP)
    rolled_to(master, 3, 2000, live)
    live.write(config(3000))
    rolled_to(master, 4, 3000, live)
    assert not master.all("rollout_aborted")
    assert master.stop()[0] == 0


def test_a_file_that_cannot_be_watched_is_read_every_few_seconds(live: Live) -> None:
    master = live.start(config(1000), wrap=WITHOUT_INOTIFY)
    live.settled(size=1)
    live.write(config(2000))
    rolled_to(master, 2, 2000, live)
    (monitor,) = [p for p in master.children() if p != live.pids()[0]]
    assert not any("inotify" in os.readlink(fd) for fd in Path(f"/proc/{monitor}/fd").iterdir())
    live.write(config(3000))
    rolled_to(master, 3, 3000, live)
    assert master.stop()[0] == 0


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_somebody_kills_the_process_that_follows_it(followed: Live, signum: int) -> None:
    live, master = followed, followed.master
    (worker,) = live.settled(size=1)
    (monitor,) = master.until(lambda: [p for p in master.children() if p != worker])
    os.kill(monitor, signum)
    live.write(config(2000))
    rolled_to(master, 3, 2000, live)
    assert not master.alive(monitor)
    assert master.stop()[0] == 0


def test_a_stop_does_not_wait_for_a_process_that_follows_it_and_hangs(followed: Live) -> None:
    live, master = followed, followed.master
    (worker,) = live.settled(size=1)
    (monitor,) = master.until(lambda: [p for p in master.children() if p != worker])
    os.kill(monitor, signal.SIGSTOP)
    code, seconds = master.stop()
    assert code == 0
    assert seconds < 2


# -- the process that reads it -------------------------------------------------------------------------------


def caught(live: Live) -> int:
    """Stop the process that reads the configuration in the middle; its pid."""
    master = live.master
    known = set(master.children())
    master.send(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while not (found := set(master.children()) - known):  # without a pause: it is there for a moment only
        assert time.monotonic() < deadline
    pid = found.pop()
    os.kill(pid, signal.SIGSTOP)
    master.until(lambda: master.status_of(pid, "State")[0] == "T")
    return pid


@pytest.fixture
def reading(live: Live) -> Live:
    """A master with a large configuration: to read it takes a while."""
    names = ", ".join(f"NAME_{n}: {n}" for n in range(1000))
    live.start(f"pools: {{web: {{command: [sleep, '1000'], env: {{{names}}}, {FAST}}}}}")
    live.settled(size=1)
    return live


def test_the_process_that_reads_it_is_killed(reading: Live) -> None:
    master, old = reading.master, reading.pids()
    os.kill(caught(reading), signal.SIGKILL)
    error = master.wait_for("reload_failed")["error"]
    assert error == f"cannot load {reading.file}: the process that reads it was killed"
    assert reading.status()["config"]["error"] == error
    assert reading.pids() == old
    master.until(lambda: master.children() == old)
    reading.write(f"pools: {{web: {{command: [sleep, '2000'], {FAST}}}}}")
    assert reading.run("reload", "--wait")[0] == 0
    assert master.stop()[0] == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_does_not_wait_for_a_process_that_reads_and_hangs(reading: Live, signum: int) -> None:
    master, stuck = reading.master, caught(reading)
    with reading.reach() as client, client.makefile() as answers:
        client.sendall(b'{"ask": "reload", "wait": true}\n')
        assert reading.pool()["state"] == "running"  # so it has read that, too
        code, seconds = master.stop(signum)
        assert answers.read() == ""
    assert code == 0
    assert seconds < 2
    assert not master.alive(stuck)


def test_what_is_asked_for_while_it_is_read_waits_its_turn(reading: Live) -> None:
    master, old = reading.master, reading.pids()
    stuck = caught(reading)
    waiting = [reading.begin("reload", "--wait") for _ in range(3)]
    for _ in range(3):
        master.send(signal.SIGHUP)
    assert reading.run("scale", "web", "2")[0] == 0
    reading.settled(size=2)
    os.kill(stuck, signal.SIGCONT)
    for process in waiting:
        assert end(process)[0] == 0
    master.wait_for("rollout_completed")
    assert not set(old) & set(reading.settled(size=2))
    assert master.stop()[0] == 0


def test_a_process_that_reads_and_hangs_does_not_keep_a_socket_open(live: Live, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    gate = tmp_path / "gate"
    wait = f"trap '' TERM; exec 3<&-; echo up; until [ -e {gate} ]; do sleep 0.02; done"
    names = ", ".join(f"NAME_{n}: {n}" for n in range(1000))
    master = live.start(
        f"""
        sockets: {{http: {{bind: "127.0.0.1:{port}"}}}}
        pools: {{web: {{command: [sh, -c, "{wait}"], sockets: [http], env: {{{names}}}, {FAST}}}}}
        """
    )
    master.wait_for_line("up")
    live.settled(size=1)
    caught(live)
    master.send(signal.SIGTERM)
    master.wait_for("worker_stopping")
    master.until(lambda: refused(port))
    gate.touch()
    assert master.wait() == 0


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


# -- what lies over the file ---------------------------------------------------------------------------------


def test_the_environment_and_the_command_line_still_lie_over_the_file(live: Live) -> None:
    def config(seconds: int, more: str = "") -> str:
        return f"pools: {{web: {sleep(seconds, f'{FAST}{more}')}}}"

    master = live.start(
        config(1000),
        args=["--set", "pools.web.nice=3", "--", "sleep", "5000"],
        env={"WEB_CONCURRENCY": "2", "ENTRYPOINT_POOLS__WEB__ENV__A": "b"},
    )
    old = live.settled(size=2)
    reloaded(live, config(2000))
    assert live.settled(size=2) == old, "the command line says the command"
    reloaded(live, config(2000, ", env: {A: c, D: e}, nice: 4"))
    for pid in live.settled(size=2):
        assert command(pid) == "sleep 5000"
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert {b"A=b", b"D=e"} <= {*environment}
        assert not any(line.startswith(b"WEB_CONCURRENCY") for line in environment)
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, master.pid) + 3
    reloaded(live, config(2000, ", env: {D: e}, workers: 3"))  # said, it counts
    live.settled(size=3)
    assert master.stop()[0] == 0


def test_a_pinned_size_survives_a_reload_until_the_count_changes(live: Live) -> None:
    def config(count: int, seconds: int = 1000) -> str:
        return f"pools: {{web: {sleep(seconds, f'workers: {count}, {FAST}')}}}"

    master = live.start(config(2))
    live.run("scale", "web", "3")
    reloaded(live, config(2, 2000))
    live.settled(size=3)
    assert live.pool()["pinned"]
    reloaded(live, config(1, 2000))
    live.settled(size=1)
    assert not live.pool()["pinned"]
    live.run("scale", "web", "0")
    live.settled(size=0)
    master.send(signal.SIGTTIN)
    live.settled(size=1)
    assert live.pool()["pinned"]
    reloaded(live, config(1, 2000))
    live.run("scale", "web", "2")
    live.settled(size=2)
    live.run("scale", "web", "reset")
    live.settled(size=1)
    assert not live.pool()["pinned"]
    assert master.stop()[0] == 0


def test_another_env_file_rolls_nobody_and_is_read_at_the_next_spawn(live: Live, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=one\n")
    (tmp_path / "secret").write_text("first")
    more = f"env_from: [{tmp_path}/env], env: {{B: {{file: {tmp_path}/secret}}}}, {FAST}"
    master = live.start(f"pools: {{web: {sleep(1000, more)}}}")
    old = live.settled(size=1)
    (tmp_path / "env").write_text("A=two\n")
    (tmp_path / "secret").write_text("second")
    assert live.run("reload", "--wait") == (0, "nothing to replace\n", "")
    assert live.pids() == old
    master.send(signal.SIGHUP)
    master.wait_for("rollout_completed")
    environment = Path(f"/proc/{live.pids()[0]}/environ").read_bytes().split(b"\0")
    assert {b"A=two", b"B=second"} <= {*environment}
    assert master.stop()[0] == 0
