"""Limits from fixture trees with the layouts that real systems have, and the worker count made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from entrypoint.config.auto import auto_workers
from entrypoint.config.spec import Auto
from entrypoint.linux.cgroup import Limits, killed, limits, oom_folder, oom_kills

if TYPE_CHECKING:
    from pathlib import Path

V1_UNLIMITED = "9223372036854771712"
V2_MOUNT = "30 23 0:26 {root} {mount} ro,nosuid - cgroup2 cgroup rw,nsdelegate\n"
V1_MOUNT = "33 25 0:29 {root} {mount} ro,nosuid - cgroup cgroup rw,{controllers}\n"


def system(root: Path, cgroup: str, mountinfo: str, files: dict[str, str]) -> str:
    """A root directory with these files."""
    files = {
        "proc/self/cgroup": cgroup,
        "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda rw\n" + mountinfo,
        **files,
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return str(root)


def test_v2_in_a_container_with_its_own_namespace(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu.max": "150000 100000\n", "sys/fs/cgroup/memory.max": "536870912\n"}
    root = system(tmp_path, "0::/\n", V2_MOUNT.format(root="/", mount="/sys/fs/cgroup"), files)
    assert limits(root, 8) == Limits(1.5, 512 * 2**20, 8)


def test_v2_without_limits(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"}
    root = system(tmp_path, "0::/\n", V2_MOUNT.format(root="/", mount="/sys/fs/cgroup"), files)
    assert limits(root, 8) == Limits(None, None, 8)


def test_v2_takes_the_tightest_ancestor(tmp_path: Path) -> None:
    base = "sys/fs/cgroup"
    files = {
        f"{base}/kubepods.slice/cpu.max": "400000 100000\n",
        f"{base}/kubepods.slice/memory.max": "1000000\n",
        f"{base}/kubepods.slice/pod1/cpu.max": "50000 100000\n",
        f"{base}/kubepods.slice/pod1/memory.max": "2000000\n",
        f"{base}/kubepods.slice/pod1/c/cpu.max": "max 100000\n",
        f"{base}/kubepods.slice/pod1/c/memory.max": "3000000\n",
        f"{base}/kubepods.slice/other/cpu.max": "1000 100000\n",
    }
    root = system(tmp_path, "0::/kubepods.slice/pod1/c\n", V2_MOUNT.format(root="/", mount="/sys/fs/cgroup"), files)
    assert limits(root, 8) == Limits(0.5, 1_000_000, 8)


def test_v1_docker_shows_the_host_path_but_mounts_the_group(tmp_path: Path) -> None:
    mounts = V1_MOUNT.format(root="/docker/abc", mount="/sys/fs/cgroup/cpu,cpuacct", controllers="cpu,cpuacct")
    mounts += V1_MOUNT.format(root="/docker/abc", mount="/sys/fs/cgroup/memory", controllers="memory")
    files = {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n",
    }
    root = system(
        tmp_path, "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n", mounts, files
    )
    assert limits(root, 8) == Limits(2.5, 256 * 2**20, 8)


def test_v1_without_limits(tmp_path: Path) -> None:
    mounts = V1_MOUNT.format(root="/", mount="/sys/fs/cgroup/cpu", controllers="cpu")
    mounts += V1_MOUNT.format(root="/", mount="/sys/fs/cgroup/memory", controllers="memory")
    files = {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED,
    }
    assert limits(system(tmp_path, "2:cpu:/\n4:memory:/\n", mounts, files), 8) == Limits(None, None, 8)


def test_v1_nested_takes_the_tightest_ancestor(tmp_path: Path) -> None:
    mounts = V1_MOUNT.format(root="/", mount="/sys/fs/cgroup/memory", controllers="memory")
    base = "sys/fs/cgroup/memory"
    files = {
        f"{base}/memory.limit_in_bytes": V1_UNLIMITED,
        f"{base}/a/memory.limit_in_bytes": "1000\n",
        f"{base}/a/b/memory.limit_in_bytes": "2000\n",
    }
    assert limits(system(tmp_path, "4:memory:/a/b\n", mounts, files), 2) == Limits(None, 1000, 2)


def test_hybrid_has_its_controllers_in_v1(tmp_path: Path) -> None:
    mounts = V1_MOUNT.format(root="/", mount="/sys/fs/cgroup/cpu", controllers="cpu")
    mounts += V1_MOUNT.format(root="/", mount="/sys/fs/cgroup/memory", controllers="memory")
    mounts += V2_MOUNT.format(root="/", mount="/sys/fs/cgroup/unified")
    files = {
        "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "4096\n",
        "sys/fs/cgroup/unified/cgroup.procs": "",
    }
    root = system(tmp_path, "4:memory:/job\n1:cpu:/job\n0::/\n", mounts, files)
    assert limits(root, 8) == Limits(3.0, 4096, 8)


@pytest.mark.parametrize(
    ("path", "mounted"), [("/../sibling", "/"), ("/docker/abc", "/docker/abc/inner"), ("/x", "/..")]
)
def test_a_group_outside_the_mount_means_the_mount_point(tmp_path: Path, path: str, mounted: str) -> None:
    files = {"sys/fs/cgroup/cpu.max": "200000 100000\n"}
    root = system(tmp_path, f"0::{path}\n", V2_MOUNT.format(root=mounted, mount="/sys/fs/cgroup"), files)
    assert limits(root, 8).cpu == 2.0


def test_a_mount_point_with_a_space(tmp_path: Path) -> None:
    files = {"mnt/c g/cpu.max": "200000 100000\n"}
    root = system(tmp_path, "0::/\n", V2_MOUNT.format(root="/", mount="/mnt/c\\040g"), files)
    assert limits(root, 8).cpu == 2.0


@pytest.mark.parametrize("content", ["", "garbage", "0 0", "-5 100000", "1", "1 2 3"])
def test_garbage_is_no_limit(tmp_path: Path, content: str) -> None:
    files = {"sys/fs/cgroup/cpu.max": content, "sys/fs/cgroup/memory.max": content}
    root = system(
        tmp_path, "0::/\nnonsense\n", V2_MOUNT.format(root="/", mount="/sys/fs/cgroup") + "x - cgroup\n", files
    )
    assert limits(root, 8).cpu is None


def test_no_proc_is_no_limit(tmp_path: Path) -> None:
    assert limits(str(tmp_path), 3) == Limits(None, None, 3)


def test_the_real_system() -> None:
    found = limits()
    assert found.affinity >= 1
    assert found.cpu is None or found.cpu > 0


@pytest.mark.parametrize(
    ("auto", "cpu", "memory", "environ", "count"),
    [
        (Auto(), 2.0, None, {}, 2),
        (Auto(), 1.5, None, {}, 2),
        (Auto(), 0.1, None, {}, 1),
        (Auto(), 64.0, None, {}, 8),  # affinity
        (Auto(), None, None, {"ENTRYPOINT_CPUS": "3"}, 3),
        (Auto(), None, None, {"ENTRYPOINT_CPUS": "2500m"}, 3),
        (Auto(), 2.0, None, {"ENTRYPOINT_CPUS": "5"}, 2),
        (Auto(per_cpu=2), 2.0, None, {}, 4),
        (Auto(per_cpu=2), 64.0, None, {}, 16),
        (Auto(per_cpu=0.1), 3.0, None, {}, 1),
        (Auto(per_cpu=10), 0.3, None, {}, 3),
        (Auto(min=4), 2.0, None, {}, 4),
        (Auto(max=3), 8.0, None, {}, 3),
        (Auto(memory=300), 8.0, 1000, {}, 3),
        (Auto(memory=300), 2.0, 1000, {}, 2),
        (Auto(memory=300), 4.0, None, {}, 4),
    ],
)
def test_auto(auto: Auto, cpu: float | None, memory: int | None, environ: dict[str, str], count: int) -> None:
    assert auto_workers(auto, Limits(cpu, memory, 8), environ) == (count, None)


@pytest.mark.parametrize(
    "environ", [{}, {"ENTRYPOINT_CPUS": "many"}, {"ENTRYPOINT_CPUS": "nan"}, {"ENTRYPOINT_CPUS": "-1"}]
)
def test_auto_without_any_limit_is_one_and_says_so(environ: dict[str, str]) -> None:
    count, warning = auto_workers(Auto(), Limits(None, None, 64), environ)
    assert count == 1
    assert warning
    assert "ENTRYPOINT_CPUS" in warning


def test_auto_says_that_the_minimum_does_not_fit() -> None:
    count, warning = auto_workers(Auto(min=4, memory=300), Limits(8.0, 1000, 8), {})
    assert count == 4
    assert warning
    assert "do not fit" in warning


def test_oom_kills_are_read_where_they_were_found(tmp_path: Path) -> None:
    base = "sys/fs/cgroup"
    files = {f"{base}/pod/box/memory.max": "max\n", f"{base}/pod/memory.events": "oom 1\noom_kill 3\n"}
    root = system(tmp_path, "0::/pod/box\n", V2_MOUNT.format(root="/", mount="/sys/fs/cgroup"), files)
    folder = oom_folder(root)
    assert folder == (2, f"{root}/{base}/pod")
    assert oom_kills(root) == killed(folder) == 3
    (tmp_path / base / "pod/memory.events").write_text("oom 2\noom_kill 4\n")
    assert killed(folder) == 4
    (tmp_path / base / "pod/memory.events").unlink()
    assert killed(folder) is None
    assert oom_folder(root) == (0, "")
    assert killed((0, "")) is None


def test_oom_kills_of_v1(tmp_path: Path) -> None:
    files = {"cg/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"}
    mounts = V1_MOUNT.format(root="/", mount="/cg/cpu", controllers="cpu") + V1_MOUNT.format(
        root="/", mount="/cg/memory", controllers="memory"
    )
    root = system(tmp_path, "3:memory:/\n2:cpu:/\n", mounts, files)
    assert oom_folder(root) == (1, f"{root}/cg/memory")
    assert oom_kills(root) == 7
