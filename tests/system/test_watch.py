"""Following the configuration file, and the process that reads it again."""

from __future__ import annotations

import os
import shutil
import signal
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.live import FAST, Live, end

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


def rolled_to(master: Master, generation: int, seconds: int, live: Live) -> None:
    """The next rollout is the one to that generation, and its worker does what the file says."""
    assert master.wait_for("rollout_completed")["generation"] == generation
    (pid,) = live.settled(size=1)
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == f"sleep\0{seconds}\0".encode()


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


def test_a_file_that_vanishes_changes_nothing_until_another_is_there(live: Live) -> None:
    master = live.start(config(1000))
    old = live.settled(size=1)
    live.file.unlink()
    live.write(config(1000))
    live.file.touch()
    live.file.unlink()
    assert live.pids() == old
    live.write(config(2000))
    rolled_to(master, 2, 2000, live)
    assert len(master.all("config_changed")) == 1
    assert not master.all("reload_failed")
    assert master.stop()[0] == 0


def test_what_is_wrong_is_said_once_and_forgotten_with_the_next_good_edit(live: Live) -> None:
    master = live.start(config(1000))
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
    master.wait_for("config_reloaded")
    assert live.status()["config"]["error"] == ""
    assert live.pids() == old
    live.write(config(2000))
    rolled_to(master, 2, 2000, live)
    assert len(master.all("reload_failed")) == 3
    assert master.stop()[0] == 0


def test_many_edits_end_with_the_last(live: Live) -> None:
    master = live.start(config(1000))
    live.settled(size=1)
    for turn in range(2000, 2200):
        live.write(config(turn))
    live.write(config(3000))
    master.until(lambda: live.status()["config"]["sha256"] == sha256(live.file.read_bytes()).hexdigest())
    (pid,) = live.settled(size=1)
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x003000\0"
    assert len(master.all("config_changed")) < 20
    assert master.stop()[0] == 0


def test_a_hup_and_the_edit_before_it_are_one_rollout(live: Live) -> None:
    master = live.start(config(1000))
    live.settled(size=1)
    live.write(config(2000))
    master.send(signal.SIGHUP)
    rolled_to(master, 2, 2000, live)
    live.write(config(3000))
    rolled_to(master, 3, 3000, live)
    assert not master.all("rollout_aborted")
    assert master.stop()[0] == 0


def test_a_file_that_cannot_be_watched_is_read_every_few_seconds(live: Live) -> None:
    master = live.start(config(1000), wrap=WITHOUT_INOTIFY)
    live.settled(size=1)
    live.write(config(2000))
    rolled_to(master, 2, 2000, live)
    assert master.stop()[0] == 0


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_somebody_kills_the_process_that_follows_it(live: Live, signum: int) -> None:
    master = live.start(config(1000))
    (worker,) = live.settled(size=1)
    (monitor,) = master.until(lambda: [p for p in master.children() if p != worker])
    os.kill(monitor, signum)
    live.write(config(2000))
    rolled_to(master, 2, 2000, live)
    assert not master.alive(monitor)
    assert master.stop()[0] == 0


def test_a_stop_does_not_wait_for_a_process_that_follows_it_and_hangs(live: Live) -> None:
    master = live.start(config(1000))
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
    assert reading.pool()["state"] == "running"
    waiting = reading.begin("reload", "--wait")
    fds = Path(f"/proc/{waiting.pid}/fd")
    master.until(lambda: any(os.readlink(fd).startswith("socket:") for fd in fds.iterdir()))
    code, seconds = master.stop(signum)
    assert code == 0
    assert seconds < 2
    assert not master.alive(stuck)
    assert end(waiting)[0] == 1


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
