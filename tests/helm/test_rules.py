"""The alerts and the dashboard that the chart brings."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.helm.harness import Object, manifests, one
from tests.monitoring.promql import DASHBOARD, SELECTOR, alerts

if TYPE_CHECKING:
    from pathlib import Path

PODS = 'namespace="shop",pod=~"web-entrypoint-[a-z0-9]+(-[a-z0-9]+)?"'


def rules(values: Object | str) -> list[Object]:
    found = one(manifests(values), "PrometheusRule")["spec"]["groups"]
    return [rule for group in found for rule in group["rules"]]


@pytest.mark.parametrize("name", ["everything", "job", "keda"])
def test_prometheus_takes_the_rules(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(one(manifests(name), "PrometheusRule")["spec"]))
    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules(name))} rules found" in done.stdout


def test_the_rules_are_the_projects_and_about_the_pods_of_the_release_only() -> None:
    found = rules({"prometheusRule": {"enabled": True}})
    assert [rule["alert"] for rule in found] == [alert["alert"] for alert in alerts()]
    for ours, original in zip(found, alerts(), strict=True):
        selectors = [matchers for _, matchers in SELECTOR.findall(ours["expr"])]
        assert selectors
        assert all(matchers.startswith(PODS) for matchers in selectors)
        plain = ours["expr"].replace(f"{PODS},", "").replace(f"{{{PODS}}}", "")
        assert plain == original["expr"]
        assert (ours["for"], ours["labels"]) == (original["for"], original["labels"])
        assert ours["annotations"]["summary"] == original["annotations"]["summary"]


def test_an_alert_leads_to_its_runbook() -> None:
    for rule in rules({"prometheusRule": {"enabled": True}}):
        assert rule["annotations"]["runbook_url"] == f"docs/ALERTS.md#{rule['alert'].lower()}"
        assert "runbook" not in rule["annotations"]
    for rule in rules("everything"):
        assert rule["annotations"]["runbook_url"].startswith("https://wiki.example.com/entrypoint#entrypoint")


def test_alerts_can_be_left_out_and_what_is_meant_to_end_is_not_missed() -> None:
    every = {alert["alert"] for alert in alerts()}
    assert {rule["alert"] for rule in rules("everything")} == every - {"EntrypointWorkerOld"}
    for name in ("job", "keda"):  # scaled to nothing
        assert {rule["alert"] for rule in rules(name)} == every - {"EntrypointMastersGone"}


def test_the_dashboard_is_the_projects() -> None:
    found = one(manifests("everything"), "ConfigMap", "web-dashboard")
    assert found["metadata"]["namespace"] == "monitoring"
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["web.json"]) == json.loads(DASHBOARD.read_text())
