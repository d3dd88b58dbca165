"""Under restrictions: no disk to write to, no capabilities, any user, few processes, little CPU and memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.docker.conftest import Run

SLEEPER = "command: [sh, -c, 'echo $ENTRYPOINT_WORKER up as $(id -u); exec sleep 1000']"
TWO = f"pools: {{web: {{workers: 2, {SLEEPER}}}}}"


@pytest.mark.parametrize(
    ("options", "uid"),
    [
        ({"read_only": True}, 10001),
        ({"cap_drop": ["ALL"]}, 10001),
        ({"cap_drop": ["ALL"], "user": "0"}, 0),
        ({"user": "12345"}, 12345),
        ({"user": "12345:0", "read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}, 12345),
        ({"network_mode": "none"}, 10001),
    ],
    ids=["read-only", "no-capabilities", "root-without-capabilities", "unknown-user", "all-of-it", "no-network"],
)
def test_workers_run_and_stop(run: Run, options: dict[str, Any], uid: int) -> None:
    box = run(config=TWO, **options)
    box.wait_for_all(f"web/0 up as {uid}", f"web/1 up as {uid}")
    code, seconds = box.stop()
    assert code == 0, box.output
    assert seconds < 4
    assert "Traceback" not in box.output


def test_a_limit_of_processes_is_said_and_survived(run: Run) -> None:
    limit = 12
    config = "pools: {web: {workers: 20, command: [sh, -c, 'echo $ENTRYPOINT_WORKER up; exec sleep 1000']}}"
    box = run(config=config, pids_limit=limit)
    box.wait_for_all("web/0 up", "cannot spawn web/")
    box.container.reload()
    assert box.container.status == "running"
    code, seconds = box.stop()
    assert code == 0, box.output
    assert seconds < 5
    assert "Traceback" not in box.output
    assert len(set(re.findall(r"(web/\d+) up", box.output))) < limit


def started(run: Run, workers: str, expected: int, **options: Any) -> set[str]:
    box = run(config=f"pools: {{web: {{workers: {workers}, {SLEEPER}}}}}", **options)
    box.wait_for_all(*(f"web/{slot} up" for slot in range(expected)))
    assert box.stop()[0] == 0, box.output
    return set(re.findall(r"(web/\d+) up", box.output))


@pytest.mark.parametrize(("cpus", "expected"), [(0.5, 1), (1.5, 2)])
def test_auto_follows_the_cpu_limit(run: Run, cpus: float, expected: int) -> None:
    assert len(started(run, "auto", expected, nano_cpus=int(cpus * 1e9))) == expected


def test_auto_is_held_by_the_memory_limit(run: Run) -> None:
    workers = "{auto: true, per_cpu: 8, memory: 64Mi}"
    assert len(started(run, workers, 4, nano_cpus=int(1e9), mem_limit="256m")) == 4


def test_auto_without_limits_is_one_and_says_why(run: Run) -> None:
    box = run(config=f"pools: {{web: {{workers: auto, {SLEEPER}}}}}")
    box.wait_for("web/0 up")
    assert box.stop()[0] == 0
    assert "web/1 up" not in box.output
    assert "auto" in box.output  # the warning
