"""Metrics of a container from outside of it, as Prometheus gets them; and what the kernel kills for lack of memory."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.docker.conftest import Box, Run

# Takes more memory than there is, in its first life only.
GREEDY = """
import os, sys, time
if not os.path.exists("/tmp/mark"):
    open("/tmp/mark", "w").close()
    hoard = [b"x" * (1 << 20) for _ in range(1000)]
    print("there was enough", flush=True)
time.sleep(1000)
"""


def get(box: Box, path: str) -> tuple[int, str]:
    """Ask the observer of a container."""
    box.container.reload()
    connection = http.client.HTTPConnection(box.container.attrs["NetworkSettings"]["IPAddress"], 9180, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def scrape(box: Box) -> dict[str, float]:
    """Every sample that is not 0, by its name and the values of its labels."""
    status, text = get(box, "/metrics")
    assert status == 200, text
    return {
        " ".join([sample.name.removeprefix("entrypoint_"), *map(str, sample.labels.values())]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.value
    }


def poll(condition: Callable[[], bool], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def test_a_worker_that_the_kernel_kills_for_lack_of_memory_is_counted_as_that(run: Run) -> None:
    commands = {"quiet": ["sleep", "1000"], "greedy": ["python3", "-S", "-c", GREEDY]}
    pools = {
        name: {"command": command, "ready": {"after": "0s"}, "restart": {"min_uptime": "0s"}}
        for name, command in commands.items()
    }
    box = run(config=json.dumps({"pools": pools}), mem_limit="64m", memswap_limit="64m")
    box.wait_for(r'"worker_exited", "pool": "greedy"[^\n]*"reason": "oom"')
    before = scrape(box)
    assert before["worker_exits_total greedy oom"] == 1
    assert before["worker_restarts_total greedy oom"] == 1
    assert before["cgroup_oom_kills_total"] == 1
    # Another KILL afterwards is no lack of memory.
    assert box.container.exec_run(["sh", "-c", "kill -9 $(pidof sleep)"]).exit_code == 0
    poll(lambda: "worker_restarts_total quiet signal" in scrape(box))
    after = scrape(box)
    exits = {key: value for key, value in after.items() if key.startswith("worker_exits_total")}
    assert exits == {"worker_exits_total greedy oom": 1, "worker_exits_total quiet signal": 1}
    assert after["cgroup_oom_kills_total"] == 1
    assert box.stop()[0] == 0, box.output
    assert "there was enough" not in box.output


def test_a_child_of_a_worker_that_is_killed_for_lack_of_memory_is_counted_for_the_container_only(run: Run) -> None:
    command = ["sh", "-c", 'python3 -S -c "$GREEDY"; exec sleep 1000']
    pool = {"command": command, "env": {"GREEDY": GREEDY}, "ready": {"after": "0s"}}
    box = run(config=json.dumps({"pools": {"web": pool}}), mem_limit="64m", memswap_limit="64m")
    box.wait_for('"pool_ready"')
    poll(lambda: scrape(box).get("cgroup_oom_kills_total", 0) >= 1)
    assert not [key for key in scrape(box) if key.startswith("worker_exits_total")]
    assert box.stop()[0] == 0, box.output


def test_probes_and_metrics_are_there_from_outside_the_container_by_default(run: Run) -> None:
    box = run(config="pools: {web: {command: [sleep, '1000'], workers: 2, ready: {after: 0s}}}", read_only=True)
    box.wait_for('"pool_ready"')
    for path in ("/livez", "/readyz", "/startupz"):
        assert get(box, path) == (200, "ok\n")
    found = scrape(box)
    assert found["pool_workers web ready"] == 2
    assert found["worker_start_time_seconds web 1"] > 1e9
    assert found["worker_resident_memory_bytes web 0"] > 1 << 16
    assert box.stop()[0] == 0
