"""Dashboard and rules against real masters: by what a scrape has, and by a Prometheus that scrapes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.monitoring.promql import RULES, alerts, names, panels, resolved, variables
from tests.system.conftest import poll
from tests.system.live import FAST, SPEAKER, Live, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from tests.system.conftest import Start

TARGET_LABELS = {"job", "instance", "namespace", "pod"}  # Prometheus adds them
Series = dict[str, list[dict[str, str]]]  # the labels of every sample, by name


class Watched:
    """A master with an observer, to which something has happened."""

    def __init__(self, live: Live, speaker: str) -> None:
        self.live = live
        self.master = live.start(
            f"""
            observer: {{bind: "127.0.0.1:0"}}
            sockets: {{http: {{bind: "127.0.0.1:0"}}, local: {{bind: "unix:{live.socket.parent}/s"}}}}
            pools:
              web: {{command: [sleep, '1000'], workers: 2, sockets: [http, local], {FAST}}}
              jobs: {{command: [{speaker}, ready, beat], ready: {{when: notify}}, heartbeat: {{timeout: 60s}}}}
            """
        )
        self.address = self.master.wait_for("observer_listens")["bind"]
        self.pids = started(self.master, 2)
        started(self.master, 1, "jobs")

    def trouble(self) -> None:
        """A worker dies, a rollout comes through, the pool grows."""
        os.kill(self.pids[0], signal.SIGKILL)
        self.master.wait_for("worker_exited", pool="web", reason="signal")
        started(self.master, 1)
        assert self.live.run("restart", "web", "--wait")[0] == 0
        assert self.live.run("scale", "web", "3")[0] == 0
        self.live.settled(size=3)

    def scrape(self) -> Series:
        """Every sample; a family without any is there with none."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        found: Series = {}
        for family in parse(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample.labels)
            if not family.samples:
                found[f"{family.name}_total" if family.type == "counter" else family.name] = []
        return found


@pytest.fixture
def watched(start: Start, entrypoint: str, tmp_path: Path, script: Callable[[str, str], str]) -> Watched:
    return Watched(Live(start, entrypoint, tmp_path), script("speaker", SPEAKER))


class Prometheus:
    """A Prometheus that watches one master by our rules."""

    def __init__(self, base: str) -> None:
        self.base = base

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.base + path, timeout=10) as reply:
            return json.load(reply)["data"]

    def is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.base}/-/ready", timeout=10).close()
        except OSError:
            return False
        return True

    def query(self, expression: str) -> list[dict[str, Any]]:
        found = self.get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        result: list[dict[str, Any]] = found["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.get("/api/v1/rules")["groups"] for rule in group["rules"]]


@contextlib.contextmanager
def prometheus(target: str, folder: Path) -> Iterator[Prometheus]:
    """Run one, with the labels that a target has in Kubernetes."""
    labels = {"namespace": "shop", "pod": "web-0"}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "shop", "static_configs": [{"targets": [target], "labels": labels}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    argv = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:0",
        "--log.format=json",
    ]
    log = folder / "prometheus.log"
    with log.open("w") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, env={**os.environ, "GOMAXPROCS": "1"})

    def address() -> str:
        assert process.poll() is None, log.read_text()
        found = re.search(r'"address":"(\S+?)".*"Listening on"', log.read_text())
        return found[1] if found else ""

    try:
        server = Prometheus(f"http://{poll(address, timeout=30)}")
        poll(server.is_ready, timeout=30)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def check(expression: str, series: Series, used: AbstractSet[str] = frozenset()) -> None:
    """All that an expression names is in the scrape; `used`: labels that are shown of it."""
    found = names(expression)
    of_any = set(TARGET_LABELS)
    for metric, matchers in found.metrics.items():
        if metric == "up":
            continue
        assert metric in series, f"there is no {metric}: {expression}"
        labels = {label for sample in series[metric] for label in sample}
        of_any |= labels
        for label, values in matchers:
            assert label in labels | TARGET_LABELS, f"{metric} has no {label}: {expression}"
            known = {sample.get(label) for sample in series[metric]}
            assert set(values) <= known, f"{metric} never has such {label}: {expression}"
    assert found.labels | used <= of_any, f"nothing has {(found.labels | used) - of_any}: {expression}"


def test_whatever_dashboard_and_rules_name_is_in_a_scrape(watched: Watched) -> None:
    watched.trouble()
    series = watched.scrape()
    for rule in alerts():
        check(rule["expr"], series, set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"]))))
    for panel in panels():
        for target in panel["targets"]:
            check(target["expr"], series, set(re.findall(r"{{(\w+)}}", target["legendFormat"])))
    for expression, label in variables().items():
        check(expression, series, {label})
    shown = {metric for panel in panels() for target in panel["targets"] for metric in names(target["expr"]).metrics}
    alerted = {metric for rule in alerts() for metric in names(rule["expr"]).metrics}
    assert {"entrypoint_worker_heartbeat_age_seconds", "entrypoint_socket_backlog_connections"} <= shown & alerted


@pytest.mark.parametrize(
    "expression",
    [
        "entrypoint_pool_worker",
        "rate(worker_spawns_total[5m])",
        'entrypoint_pool_workers{phase="ready"}',
        'entrypoint_pool_workers{state="idle"}',
        "sum by (queue) (entrypoint_pool_workers)",
        "entrypoint_pool_failed == 1 unless on (pods) up",
    ],
)
def test_a_name_that_is_not_there_is_found_out(expression: str) -> None:
    series = {
        "entrypoint_pool_workers": [{"pool": "web", "state": "ready"}],
        "entrypoint_pool_failed": [{"pool": "web"}],
    }
    check('sum by (pool) (entrypoint_pool_workers{pool=~"$pool",state="ready"})', series)
    with pytest.raises(AssertionError):
        check(expression, series)


def test_every_panel_shows_something_and_every_rule_is_evaluated(watched: Watched, tmp_path: Path) -> None:
    with prometheus(watched.address, tmp_path) as server:
        poll(lambda: server.query("entrypoint_build_info"), timeout=30)
        watched.trouble()
        fresh = 'increase(entrypoint_worker_restarts_total{reason="signal",pool="web"}[1m]) > 0'
        poll(lambda: server.query(fresh), timeout=30)
        poll(lambda: server.query('entrypoint_pool_workers{pool="web",state="ready"} == 3'), timeout=30)
        knows_kills = bool(watched.scrape()["entrypoint_cgroup_oom_kills_total"])
        for panel in panels():
            for target in panel["targets"]:
                if "oom_kills" in target["expr"] and not knows_kills:
                    continue  # the kernel does not tell here
                result = server.query(resolved(target["expr"]))
                assert result, f"{panel['title']} is empty: {target['expr']}"
                legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                assert all(legend <= set(series["metric"]) for series in result), panel["title"]
        for expression, label in variables().items():
            assert all(label in series["metric"] for series in server.query(resolved(expression)))

        poll(lambda: all(rule["health"] != "unknown" for rule in server.rules()), timeout=30)
        rules = server.rules()
        assert [rule["name"] for rule in rules] == [rule["alert"] for rule in alerts()]
        assert not [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]
        assert not [rule["name"] for rule in rules if rule["state"] == "firing"]


def test_a_master_that_does_not_answer_and_one_that_rejects_its_file_are_noticed(
    watched: Watched, tmp_path: Path
) -> None:
    def pending() -> set[str]:
        return {rule["name"] for rule in server.rules() if rule["state"] == "pending"}

    with prometheus(watched.address, tmp_path) as server:
        poll(lambda: server.query("entrypoint_build_info"), timeout=30)
        watched.live.write("pools: {web: {comand: [sleep, '1']}}")
        assert watched.live.run("reload")[0] == 1
        poll(lambda: pending() == {"EntrypointReloadFailed"}, timeout=30)
        os.kill(watched.master.pid, signal.SIGSTOP)
        try:
            poll(lambda: pending() >= {"EntrypointMasterDown"}, timeout=30)
        finally:
            os.kill(watched.master.pid, signal.SIGCONT)
        poll(lambda: pending() == {"EntrypointReloadFailed"}, timeout=30)
