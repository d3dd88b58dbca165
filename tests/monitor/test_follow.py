"""Following the configuration file: real files, changed in the ways in which they are."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from entrypoint.config.spec import Probe


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def replace(path: Path, text: str) -> None:
    """As an editor does it."""
    temporary = path.with_name(".new")
    temporary.write_text(text)
    temporary.rename(path)


class ConfigMap:
    """A folder that a kubelet fills."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self.turn = 0
        folder.mkdir()
        self.swap(text)
        (folder / "config.yaml").symlink_to("..data/config.yaml")

    def swap(self, text: str, *, keep: bool = False) -> None:
        self.turn += 1
        new = self.folder / f"..2024_{self.turn}"
        new.mkdir()
        (new / "config.yaml").write_text(text)
        old = os.readlink(self.folder / "..data") if self.turn > 1 else ""
        (self.folder / "..data_tmp").symlink_to(new.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        if old and not keep:
            shutil.rmtree(self.folder / old)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("one")
    return path


def hears_of(monitor: Any, text: str) -> None:
    assert monitor.wait_for("config")["sha256"] == digest(text)


def settle(monitor: Any) -> None:
    """What is followed is known to be watched when a first change has been reported."""
    hears_of(monitor, "one")
    monitor.loaded(digest("one"))


def test_what_the_master_knows_is_not_reported(monitor: Any, file: Path) -> None:
    monitor.follow(file, digest("one"))
    monitor.hears_nothing(0.8)


def test_a_change_before_the_follow_is_reported(monitor: Any, file: Path) -> None:
    monitor.follow(file, digest("zero"))
    hears_of(monitor, "one")
    monitor.hears_nothing(0.5)


def test_a_plain_edit_is_reported(monitor: Any, file: Path) -> None:
    monitor.follow(file)
    settle(monitor)
    file.write_text("two")
    hears_of(monitor, "two")
    monitor.hears_nothing(0.5)


def test_the_command_that_the_master_executes_has_all_that_it_needs(start: Any, file: Path, tmp_path: Path) -> None:
    (tmp_path / "h11.py").write_text("raise SystemExit('not ours')")
    monitor = start(command=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    with socket.create_server(("127.0.0.1", 0)) as server:
        monitor.watch(Probe(http=f"http://127.0.0.1:{server.getsockname()[1]}/"))
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            monitor.wait_for("ready")
    monitor.follow(file)
    settle(monitor)
    replace(file, "two")
    hears_of(monitor, "two")


def test_the_same_content_written_again_is_not_reported(monitor: Any, file: Path) -> None:
    monitor.follow(file)
    settle(monitor)
    replace(file, "one")
    file.touch()
    monitor.hears_nothing(0.8)


def test_each_atomic_replacement_is_reported(monitor: Any, file: Path) -> None:
    monitor.follow(file)
    settle(monitor)
    for text in ("two", "three", "four"):
        replace(file, text)
        hears_of(monitor, text)
    monitor.hears_nothing(0.5)


def test_each_swap_of_a_configmap_is_reported(monitor: Any, tmp_path: Path) -> None:
    volume = ConfigMap(tmp_path / "volume", "one")
    monitor.follow(tmp_path / "volume" / "config.yaml")
    settle(monitor)
    for text in ("two", "three", "four"):
        volume.swap(text)
        hears_of(monitor, text)
    monitor.hears_nothing(0.5)


def test_links_across_folders_are_followed(start: Any, tmp_path: Path) -> None:
    monitor = start(timing={"recheck_blind": 1000})
    volume = ConfigMap(tmp_path / "volume", "one")
    (tmp_path / "etc").mkdir()
    (tmp_path / "app").symlink_to("etc/../volume")
    link = tmp_path / "etc" / "entry.yaml"
    link.symlink_to(tmp_path / "app" / "config.yaml")
    monitor.follow(link)
    settle(monitor)
    volume.swap("two", keep=True)  # so nothing happens to the old file
    hears_of(monitor, "two")
    other = ConfigMap(tmp_path / "other", "three")
    (tmp_path / "app.new").symlink_to("other")
    (tmp_path / "app.new").rename(tmp_path / "app")  # the folder of the file is another now
    hears_of(monitor, "three")
    other.swap("four")
    hears_of(monitor, "four")
    volume.swap("five")
    monitor.hears_nothing(0.5)


def test_a_folder_that_is_moved_away_and_comes_back_is_followed(start: Any, tmp_path: Path) -> None:
    monitor = start(timing={"recheck_blind": 0.3})
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.yaml").write_text("one")
    monitor.follow(folder / "config.yaml")
    settle(monitor)
    folder.rename(tmp_path / "away")
    monitor.hears_nothing(0.5)
    folder.mkdir()
    (folder / "config.yaml").write_text("two")
    hears_of(monitor, "two")
    (folder / "config.yaml").write_text("three")
    hears_of(monitor, "three")


def test_a_vanished_file_is_not_reported(monitor: Any, file: Path) -> None:
    monitor.follow(file)
    settle(monitor)
    file.unlink()
    monitor.hears_nothing(0.5)
    file.write_text("two")
    hears_of(monitor, "two")


def test_a_series_of_quick_writes_is_reported_with_its_last_content(monitor: Any, file: Path) -> None:
    monitor.follow(file)
    settle(monitor)
    for turn in range(200):
        replace(file, f"turn {turn}")
        time.sleep(0.002)
    reported = []
    while digest("turn 199") not in reported:
        reported.append(monitor.wait_for("config")["sha256"])
    assert len(reported) <= 4  # it did not wait for each, nor for ever
    monitor.hears_nothing(0.5)


def test_a_file_that_never_rests_is_reported_all_the_same(monitor: Any, file: Path) -> None:
    monitor.follow(file)
    settle(monitor)
    deadline = time.monotonic() + 10
    while not monitor.lines:
        replace(file, str(time.monotonic()))
        with suppress(TimeoutError):
            monitor.read(0.03)
        assert time.monotonic() < deadline


def test_writes_to_its_neighbours_are_no_change(start: Any, file: Path) -> None:
    monitor = start(timing={"quiet": 0.5, "unquiet": 100})
    monitor.follow(file)
    settle(monitor)
    with subprocess.Popen(["sh", "-c", "while :; do echo > neighbour; done"], cwd=file.parent) as busy:
        try:
            while not file.with_name("neighbour").exists():
                time.sleep(0.01)
            file.write_text("two")
            hears_of(monitor, "two")  # so they do not hold up the quiet either
        finally:
            busy.kill()


def test_a_content_that_comes_back_is_reported_again(monitor: Any, file: Path) -> None:
    monitor.follow(file)
    settle(monitor)
    file.write_text("bad")
    hears_of(monitor, "bad")
    monitor.loaded(digest("bad"))  # and rejected
    file.write_text("one")
    hears_of(monitor, "one")
    monitor.loaded(digest("one"))
    file.write_text("bad")
    hears_of(monitor, "bad")


def test_a_content_that_comes_back_before_the_master_has_read_it_is_reported_again(monitor: Any, file: Path) -> None:
    monitor.follow(file)
    settle(monitor)
    file.write_text("two")
    hears_of(monitor, "two")
    file.write_text("one")  # which the master runs by
    monitor.hears_nothing(0.6)
    file.write_text("two")
    hears_of(monitor, "two")


def test_what_the_master_missed_is_reported_again(start: Any, file: Path) -> None:
    monitor = start(timing={"recheck": 0.4})
    monitor.follow(file)
    settle(monitor)
    file.write_text("two")
    hears_of(monitor, "two")
    monitor.loaded(digest("between"))  # what was there when it read
    hears_of(monitor, "two")
    monitor.hears_nothing(1)


def test_what_the_master_read_first_is_not_reported(start: Any, file: Path) -> None:
    monitor = start(timing={"quiet": 0.7})
    monitor.follow(file)
    settle(monitor)
    file.write_text("two")
    monitor.loaded(digest("two"))  # a HUP, for example
    monitor.hears_nothing(1.2)


def test_a_write_that_the_kernel_does_not_tell_of_is_found_later(start: Any, file: Path) -> None:
    monitor = start(timing={"recheck": 0.4})
    monitor.follow(file)
    settle(monitor)
    with open(file, "r+") as writer:  # and not closed
        writer.write("two")
        writer.flush()
        hears_of(monitor, "two")


def test_a_file_is_read_now_and_then_where_it_cannot_be_watched(start: Any, file: Path) -> None:
    # None of them is left; in a user namespace of its own, so that nobody else is concerned.
    script = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    monitor = start("unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", timing={"recheck_blind": 0.3})
    monitor.follow(file)
    settle(monitor)
    assert not any("inotify" in os.readlink(fd) for fd in Path(f"/proc/{monitor.pid}/fd").iterdir())
    file.write_text("two")
    hears_of(monitor, "two")


def test_a_file_that_is_mounted_alone_is_followed(start: Any, tmp_path: Path, file: Path) -> None:
    mounted = tmp_path / "mounted.yaml"
    mounted.touch()
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    monitor = start("unshare", "--mount", "sh", "-c", script, "sh", str(file), str(mounted))
    monitor.follow(mounted)
    settle(monitor)
    file.write_text("two")
    hears_of(monitor, "two")


def test_a_file_that_is_too_large_is_reported_once(monitor: Any, file: Path) -> None:
    monitor.follow(file)
    settle(monitor)
    file.write_bytes(b"x" * (1 << 20) + b"y")
    assert len(monitor.wait_for("config")["sha256"]) == 64
    file.write_text("two")
    hears_of(monitor, "two")


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_file_is_not_reported(monitor: Any, file: Path, kind: str) -> None:
    monitor.follow(file)
    settle(monitor)
    file.unlink()
    os.mkfifo(file) if kind == "fifo" else file.mkdir()
    monitor.hears_nothing(0.5)


def test_another_file_can_be_followed_instead(monitor: Any, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("one")
    monitor.follow(file)
    settle(monitor)
    monitor.follow(other, digest("one"))
    monitor.hears_nothing(0.4)
    file.write_text("two")
    monitor.hears_nothing(0.4)
    other.write_text("three")
    hears_of(monitor, "three")
