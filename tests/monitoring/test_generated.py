"""The files that are generated: up to date, and what Prometheus and Grafana take."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.monitoring.promql import DASHBOARD, ROOT, RULES, alerts, panels, variables

if TYPE_CHECKING:
    from pathlib import Path

SCENARIOS = ROOT / "monitoring/alerts_test.yaml"
FILES = ("helm/entrypoint/files/alerts.yaml", "helm/entrypoint/files/dashboard.json", "docs/ALERTS.md")


def run(*argv: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(argv, cwd=cwd, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_is_generated_is_up_to_date(tmp_path: Path) -> None:
    run(sys.executable, "-m", "monitoring", tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), f"{name} is old: python -m monitoring"


def test_prometheus_takes_the_rules() -> None:
    assert f"SUCCESS: {len(alerts())} rules found" in run("promtool", "check", "rules", RULES)


def test_the_scenarios_come_out_as_they_should() -> None:
    run("promtool", "test", "rules", SCENARIOS)


def test_each_alert_fires_in_one_scenario_and_is_silent_at_another_moment_of_it() -> None:
    proven = set()
    for scenario in yaml.safe_load(SCENARIOS.read_text())["tests"]:
        steps = [str(step.get("exp_samples", "")) for step in scenario["promql_expr_test"]]
        firing = {alert for step in steps for alert in re.findall(r'alertname="(\w+)"', step)}
        proven |= {alert for alert in firing if any(alert not in step for step in steps)}
    assert proven == {rule["alert"] for rule in alerts()}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_where_help_is(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Entrypoint")
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    path, _, anchor = annotations["runbook"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / path).read_text(), re.MULTILINE)
    assert headings == [each["alert"] for each in alerts()]
    assert anchor == rule["alert"].lower()


def test_what_an_alert_refers_to_exists() -> None:
    text = (ROOT / "docs/ALERTS.md").read_text()
    known = {rule["alert"] for rule in alerts()}
    assert set(re.findall(r"\bEntrypoint[A-Z]\w+", text)) == known
    for name in re.findall(r"\b[A-Z]+\.md\b", text):
        assert (ROOT / "docs" / name).exists()


def test_the_panels_do_not_cover_each_other() -> None:
    every = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    boxes = [panel["gridPos"] for panel in every]
    assert all(box["x"] >= 0 and box["x"] + box["w"] <= 24 for box in boxes)
    for one, other in combinations(boxes, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above


def test_the_dashboard_is_for_any_data_source() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    listed = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(listed) == ["datasource", "namespace", "pod", "pool"]
    assert list(variables().values()) == ["namespace", "pod", "pool"]
    assert dashboard["schemaVersion"] >= 36
    assert "id" not in dashboard, "an id is of one Grafana"
    sources = re.findall(r'"uid": "(\$\{?\w+\}?)"', DASHBOARD.read_text())
    assert set(sources) == {"${datasource}"}
    for panel in panels():
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {*listed, "__rate_interval"}
