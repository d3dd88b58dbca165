"""The metrics of real deaths, timeouts, rollouts and ages; and Prometheus itself as their reader."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.conftest import poll
from tests.system.live import FAST, Live, started
from tests.system.observed import OBSERVER, Observed, series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Script = Callable[[str, str], str]
    from tests.system.conftest import Start

UNASKED = ("completed", "error", "signal", "oom", "boot_timeout", "heartbeat_timeout", "liveness")
NOT_HERE = ("oom", "max_lifetime", "max_memory", "max_requests", "memory_guard")  # oom: see tests/docker
REASONS = (*UNASKED, *NOT_HERE[1:], "rollout", "scale_down", "shutdown", "requested")
TICK = os.sysconf("SC_CLK_TCK")

# A worker that has one way to die, and dies of it in its first life only. In the others it does all that is expected.
MORTAL = f"""#!{sys.executable} -S
import os, signal, socket, sys, time
fate, mark = sys.argv[1], sys.argv[2] + os.environ["ENTRYPOINT_WORKER"].partition("/")[0]
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect("\\0" + os.environ["NOTIFY_SOCKET"][1:])
try:
    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
except FileExistsError:
    fate = "none"
if fate == "boot_timeout":
    time.sleep(1000)
with open(mark, "w") as file:
    file.write("sick" if fate == "liveness" else "well")
if fate == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
notify.send(b"READY=1")
if fate == "completed":
    sys.exit(0)
if fate == "error":
    sys.exit(7)
if fate == "signal":
    os.kill(os.getpid(), signal.SIGKILL)
while True:
    if fate != "heartbeat_timeout":
        notify.send(b"WATCHDOG=1")
    time.sleep(0.05)
"""


@pytest.fixture
def live(start: Start, entrypoint: str, tmp_path: Path) -> Live:
    return Live(start, entrypoint, tmp_path)


# Uses 0.3 s of CPU, then ends in its first life.
BURNER = """
import os, sys, time
while time.process_time() < 0.3:
    pass
if not os.path.exists(sys.argv[1]):
    sys.exit(open(sys.argv[1], "w").close())
time.sleep(1000)
"""


def process_age(pid: int) -> float:
    """Seconds since the kernel started it."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / TICK


def test_every_reason_of_death_is_counted_once(live: Live, script: Script, tmp_path: Path) -> None:
    mortal = script("mortal", MORTAL)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    last = json.dumps(f'trap "cat {gate}; exit" TERM; echo up; while :; do sleep 0.02; done')
    common = "ready: {when: notify}, restart: {min_uptime: 0s}, stop: {timeout: 20s}, after: [last]"
    more = {
        "boot_timeout": "boot_timeout: 2s, ",
        "heartbeat_timeout": "heartbeat: {timeout: 2s}, ",
        "liveness": f"liveness: {{exec: [grep, well, {tmp_path}/liveness], period: 100ms, failure_threshold: 1}}, ",
        "scale_down": "workers: 2, ",
    }
    died = [reason for reason in REASONS if reason not in NOT_HERE]
    pools = [
        f"  {name(fate)}: {{command: [{mortal}, {fate}, {tmp_path}/], {more.get(fate, '')}{common}}}\n" for fate in died
    ]
    master = live.start(
        f"{OBSERVER}pools:\n  last: {{command: [sh, -c, {last}], ready: {{after: 0s}}, stop: {{timeout: 60s}}}}\n"
        + "".join(pools)
    )
    seen = Observed(master)
    master.wait_for_line("up")
    for fate in died:  # whose successor is ready has its whole story behind it
        lives = 2 if fate in ("scale_down", *UNASKED) and fate != "boot_timeout" else 1
        for _ in range(lives):
            master.wait_for("worker_ready", pool=name(fate), timeout=30)
    assert live.run("restart", "rollout", "--wait")[0] == 0
    assert live.run("scale", "scale-down", "1")[0] == 0
    assert live.run("stop", "requested")[0] == 0
    for pool in ("rollout", "scale-down", "requested"):
        master.wait_for("worker_exited", pool=pool)
    master.send(signal.SIGTERM)
    for fate in died:
        if fate != "requested":  # it has nobody left
            master.wait_for("pool_stopped", pool=name(fate))
    samples = seen.scrape()  # while the last pool still stops
    gate.write_text("")
    assert master.wait() == 0

    exits = series(samples, "worker_exits_total", "pool", "reason")
    restarts = series(samples, "worker_restarts_total", "pool", "reason")
    expected = {(name(fate), fate): 1.0 for fate in died}
    assert {key: count for key, count in restarts.items() if count} == {
        key: count for key, count in expected.items() if key[1] in UNASKED
    }
    left = {(name(fate), "shutdown"): 1.0 for fate in died if fate != "requested"}  # who went with the master
    assert {key: count for key, count in exits.items() if count} == expected | left
    assert exits.keys() == {(pool, reason) for pool in ("last", *map(name, died)) for reason in REASONS}
    timeouts = series(samples, "worker_timeouts_total", "pool", "phase")
    late = {key: count for key, count in timeouts.items() if count}
    assert late == {("boot-timeout", "boot"): 1, ("heartbeat-timeout", "heartbeat"): 1}

    for pool in map(name, died):  # the log tells the same
        count = {
            metric: samples[f"worker_{metric}", frozenset({("pool", pool)})]
            for metric in (
                "spawns_total",
                "boot_duration_seconds_count",
                "lifetime_seconds_count",
                "stop_duration_seconds_count",
            )
        }
        events = ("worker_started", "worker_ready", "worker_exited", "worker_stopping")
        assert [*count.values()] == [len(master.all(event, pool=pool)) for event in events], pool
        ends = {reason: exits[pool, reason] for reason in REASONS}
        assert ends == {reason: len(master.all("worker_exited", pool=pool, reason=reason)) for reason in REASONS}


def name(reason: str) -> str:
    """Of the pool whose worker dies of it."""
    return reason.replace("_", "-")


def test_a_stop_that_takes_too_long_is_a_timeout_and_its_time_is_measured(
    live: Live, script: Script, tmp_path: Path
) -> None:
    command = f"[{script('mortal', MORTAL)}, deaf, {tmp_path}/]"
    quick = "restart: {min_uptime: 0s}"
    master = live.start(
        OBSERVER
        + f"pools: {{web: {{command: {command}, ready: {{when: notify}}, {quick}, stop: {{timeout: 600ms}}}}}}\n"
    )
    seen = Observed(master)
    started(master, 1)
    assert live.run("restart", "web")[0] == 0
    master.wait_for("worker_exited", reason="rollout")
    assert seen.value("worker_timeouts_total", pool="web", phase="stop") == 1
    assert seen.value("worker_exits_total", pool="web", reason="rollout") == 1
    assert seen.value("worker_restarts_total", pool="web", reason="signal") == 0
    samples = seen.scrape()
    buckets = series(samples, "worker_stop_duration_seconds_bucket", "le")
    assert (buckets["0.5",], buckets["+Inf",]) == (0, 1)
    assert 0.6 <= samples["worker_stop_duration_seconds_sum", frozenset({("pool", "web")})] < 10
    assert master.stop()[0] == 0


def test_rollouts_and_changes_of_size_are_counted_by_their_outcome(live: Live) -> None:
    good = f"pools:\n  web: {{command: [sleep, '1000'], {FAST}}}\n"
    slow = f"pools:\n  web: {{command: [sleep, '1001'], ready: {{after: 50s}}, {FAST.split(', ', 1)[1]}}}\n"
    master = live.start(OBSERVER + good)
    seen = Observed(master)
    started(master, 1)

    def outcomes() -> list[float]:
        found = series(seen.scrape(), "rollouts_total", "pool", "result")
        return [found["web", result] for result in ("completed", "failed", "aborted")]

    assert outcomes() == [0, 0, 0]
    assert live.run("restart", "web", "--wait")[0] == 0
    assert outcomes() == [1, 0, 0]
    assert seen.value("pool_generation", pool="web") == 2
    live.write(OBSERVER + good.replace("sleep, '1000'", "'false'"))
    assert live.run("reload", "--wait")[0] == 1
    assert outcomes() == [1, 1, 0]
    master.wait_for("rolled_back")
    live.write(OBSERVER + slow)
    assert live.run("reload")[0] == 0
    assert seen.value("pool_rollout_in_progress", pool="web") == 1
    live.write(OBSERVER + good)
    assert live.run("reload", "--wait")[0] in (0, 1)
    seen.wait_for(0, "pool_rollout_in_progress", pool="web")
    assert outcomes() == [1, 1, 1]

    assert live.run("scale", "web", "3")[0] == 0
    assert live.run("scale", "web", "2")[0] == 0
    assert live.run("scale", "web", "2")[0] == 0  # no change
    master.send(signal.SIGTTIN)
    seen.wait_for(3, "pool_workers_desired", pool="web")
    assert series(seen.scrape(), "scale_events_total", "direction") == {("up",): 2, ("down",): 1}
    assert master.stop()[0] == 0


def test_ages_and_start_times_are_those_of_the_process_table(start: Start) -> None:
    master = start(OBSERVER + f"pools: {{web: {{command: [sleep, '1000'], workers: 3, {FAST}}}}}\n")
    seen = Observed(master)
    started(master, 3)
    killed = seen.status()["pools"]["web"]["workers"][1]["pid"]
    poll(lambda: process_age(killed) > 1)  # so that the new one differs
    os.kill(killed, signal.SIGKILL)
    seen.wait_for(1, "worker_exits_total", pool="web", reason="signal")
    seen.wait_for(3, "pool_workers", pool="web", state="ready")
    status = seen.status()["pools"]["web"]["workers"]
    least = {str(w["slot"]): process_age(w["pid"]) for w in status}
    samples = seen.scrape()
    now = time.time()
    most = {str(w["slot"]): process_age(w["pid"]) for w in status}
    ages = series(samples, "worker_age_seconds", "pool", "slot")
    starts = series(samples, "worker_start_time_seconds", "pool", "slot")
    assert ages.keys() == starts.keys() == {("web", "0"), ("web", "1"), ("web", "2")}
    for (_, slot), age in ages.items():
        assert least[slot] - 0.3 <= age <= most[slot] + 0.3  # the kernel's clock is a coarse one
        assert abs(now - most[slot] - starts["web", slot]) < 0.3
    assert min(ages["web", "0"], ages["web", "2"]) - ages["web", "1"] > 0.9
    assert samples["master_start_time_seconds", frozenset()] == pytest.approx(now - process_age(master.pid), abs=1)
    for name in ("master_resident_memory_bytes", "worker_resident_memory_bytes"):
        assert all(1 << 16 < value < 1 << 26 for value in series(samples, name).values())
    for _ in range(5):  # to the digit: that it changes is how a restart is known
        assert series(seen.scrape(), "worker_start_time_seconds", "pool", "slot") == starts
    assert master.stop()[0] == 0


def test_the_cpu_time_of_dead_workers_is_kept(start: Start, tmp_path: Path) -> None:
    command = json.dumps([sys.executable, "-S", "-c", BURNER, str(tmp_path / "mark")])
    master = start(OBSERVER + f"pools: {{web: {{command: {command}, {FAST}}}}}\n")
    seen = Observed(master)
    last = 0.0

    def enough() -> bool:
        nonlocal last
        before, last = last, seen.value("worker_cpu_seconds_total", pool="web") or 0.0
        assert last >= before  # whoever dies between two scrapes
        return last >= 0.5  # both lives, in whole ticks

    poll(enough)
    assert seen.value("worker_exits_total", pool="web", reason="completed") == 1
    assert last < 3
    assert master.stop()[0] == 0


def test_nothing_grows_with_restarts(start: Start) -> None:
    master = start(
        OBSERVER + f"pools: {{web: {{command: [sleep, '1000'], workers: 2, {FAST.replace('150ms', '0s')}}}}}\n"
    )
    seen = Observed(master)
    pids = started(master, 2)
    first = seen.scrape()
    for _ in range(20):
        os.kill(pids.pop(0), signal.SIGKILL)
        pids += started(master, 1)
    last = seen.scrape()
    assert last.keys() == first.keys()
    assert last["worker_restarts_total", frozenset({("pool", "web"), ("reason", "signal")})] == 20
    assert last["worker_spawns_total", frozenset({("pool", "web")})] == 22
    assert not any(str(pid) in text for key in last for _, text in key[1] for pid in pids)
    assert master.stop()[0] == 0


def test_a_worker_that_waits_to_be_started_has_no_age(start: Start) -> None:
    policy = "restart: {min_uptime: 50s, give_up_after: 0, backoff: {initial: 100s, max: 100s}}"
    master = start(OBSERVER + f"pools: {{web: {{command: ['false'], ready: {{after: 40s}}, {policy}}}}}\n")
    seen = Observed(master)
    for _ in range(2):
        master.wait_for("worker_exited")
    seen.wait_for(1, "pool_workers", pool="web", state="backoff")
    samples = seen.scrape()
    assert not series(samples, "worker_age_seconds", "slot")
    assert 30 < series(samples, "pool_backoff_seconds")[()] < 130
    assert samples["worker_exits_total", frozenset({("pool", "web"), ("reason", "error")})] == 2
    assert master.stop()[0] == 0


# -- Prometheus ----------------------------------------------------------------------------------------------


def promtool(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", "check", *words], check=False, text=True, capture_output=True, timeout=30, **options
    )


def test_promtool_finds_nothing_to_say(start: Start) -> None:
    master = start(
        OBSERVER + f"pools: {{web: {{command: [sleep, '1000'], {FAST}}}}}\nsockets: {{http: {{bind: '127.0.0.1:0'}}}}\n"
    )
    seen = Observed(master)
    started(master, 1)
    text = seen.get("/metrics").text
    found = promtool("metrics", input=text)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")
    assert master.stop()[0] == 0


def test_the_rules_and_the_scrape_configuration_of_the_documents_are_valid(root: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (root / "docs/METRICS.md").read_text(), re.MULTILINE | re.DOTALL)
    for first, *words in (("groups:", "rules"), ("scrape_configs:", "config")):
        [block] = [text for text in blocks if text.startswith(first)]
        path = tmp_path / "file.yaml"
        path.write_text(block)
        found = promtool(*words, str(path))
        assert found.returncode == 0, found.stdout + found.stderr


class Prometheus:
    """A server that scrapes one target every second, and what it answers."""

    def __init__(self, folder: Path, target: tuple[str, int], rules: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self._address = f"127.0.0.1:{sock.getsockname()[1]}"
        (folder / "rules.yaml").write_text(rules)
        (folder / "prometheus.yaml").write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
            f"rule_files: [{folder}/rules.yaml]\n"
            f"scrape_configs: [{{job_name: web, static_configs: [{{targets: ['{target[0]}:{target[1]}']}}]}}]\n"
        )
        argv = [
            "prometheus",
            f"--config.file={folder}/prometheus.yaml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={self._address}",
        ]
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(argv, stdout=self._log, stderr=self._log, cwd=folder)

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return json.load(response)["data"]
        except (urllib.error.URLError, ConnectionError):  # not there yet
            assert self._process.poll() is None, Path(self._log.name).read_text()
            return {}

    def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """The values, by the values of pool, slot, reason and phase."""
        return {
            tuple(one["metric"][key] for key in ("pool", "slot", "reason", "phase") if key in one["metric"]): float(
                one["value"][1]
            )
            for one in self.ask("query", query=expression).get("result", ())
        }

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


@pytest.fixture
def prometheus(root: Path, tmp_path: Path) -> Iterator[Callable[[Observed], Prometheus]]:
    servers: list[Prometheus] = []

    def begin(seen: Observed) -> Prometheus:
        folder = tmp_path / "prometheus"
        folder.mkdir()
        text = (root / "docs/METRICS.md").read_text()
        [rules] = re.findall(r"^```yaml\n(groups:.*?)^```$", text, re.MULTILINE | re.DOTALL)
        servers.append(Prometheus(folder, seen.address, rules))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()


def test_prometheus_itself_answers_for_ages_restarts_and_timeouts(
    live: Live, script: Script, tmp_path: Path, prometheus: Callable[[Observed], Prometheus]
) -> None:
    mortal = script("mortal", MORTAL)
    beats = "ready: {when: notify}, heartbeat: {timeout: 2s, abort_grace: 500ms}"
    master = live.start(
        OBSERVER
        + "pools:\n"
        + f"  web: {{command: [sleep, '1000'], workers: 2, {FAST}}}\n"
        + f"  jobs: {{command: [{mortal}, none, {tmp_path}/], {beats}}}\n"
    )
    seen = Observed(master)
    pids = started(master, 2)
    server = prometheus(seen)
    poll(lambda: server.query('up{job="web"}') == {(): 1}, timeout=30)
    poll(lambda: ("jobs", "0") in server.query("entrypoint_worker_heartbeat_age_seconds"))
    restarts = 'entrypoint_worker_restarts_total{reason=~"signal|heartbeat_timeout"} > 0'
    assert server.query(restarts) == {}
    os.kill(pids[0], signal.SIGKILL)
    os.kill(started(master, 1, "jobs")[0], signal.SIGSTOP)  # hangs, as seen from outside
    poll(lambda: server.query(restarts) == {("web", "signal"): 1, ("jobs", "heartbeat_timeout"): 1}, timeout=30)
    assert server.query("entrypoint_worker_timeouts_total > 0") == {("jobs", "heartbeat"): 1}
    poll(lambda: server.query("increase(entrypoint_worker_restarts_total[1m]) > 0").keys() >= {("web", "signal")})
    ages = server.query("entrypoint_worker_age_seconds")
    assert ages.keys() == {("web", "0"), ("web", "1"), ("jobs", "0")}
    assert max(ages.values()) <= process_age(pids[1]) + 0.3
    for (pool, slot), start_time in server.query("entrypoint_worker_start_time_seconds").items():
        pid = next(w["pid"] for w in seen.status()["pools"][pool]["workers"] if str(w["slot"]) == slot)
        assert start_time == pytest.approx(time.time() - process_age(pid), abs=1)

    def firing() -> set[str]:
        return {alert["labels"]["alertname"] for alert in server.ask("alerts").get("alerts", ())}

    poll(lambda: "WorkersHang" in firing())
    assert not firing() & {"ReloadRejected", "RolloutFailed", "WorkersDie"}
    assert master.stop()[0] == 0
    poll(lambda: server.query('up{job="web"}') == {(): 0}, timeout=30)
