"""What an expression names: enough of PromQL for ours, and an error for what it does not know."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "helm/entrypoint/files/alerts.yaml"
DASHBOARD = ROOT / "helm/entrypoint/files/dashboard.json"

GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"\b(entrypoint_\w+|up)\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
NOT_NAMES = re.compile(r"\w+\s*\(|\[[^]]*\]|\b(?:and|or|unless)\b|\b\d[\d.]*\b")


class Matcher(NamedTuple):
    """`label` is compared with these values; with none if they are the user's choice."""

    label: str
    values: list[str]


class Names(NamedTuple):
    """What an expression is about."""

    metrics: dict[str, list[Matcher]]
    labels: set[str]  # that results are grouped or joined by


def names(expression: str) -> Names:
    """Take an expression apart."""
    labels = {label for group in GROUPING.findall(expression) for label in re.findall(r"\w+", group)}
    rest = GROUPING.sub(" ", expression)
    metrics: dict[str, list[Matcher]] = {}
    for name, matchers in SELECTOR.findall(rest):
        found = MATCHER.findall(matchers)
        assert re.sub(r"[\s,]", "", MATCHER.sub("", matchers)) == "", matchers
        metrics.setdefault(name, []).extend(
            Matcher(label, [] if "$" in value else value.split("|")) for label, _, value in found
        )
    rest = NOT_NAMES.sub(" ", SELECTOR.sub(" ", rest))
    assert not re.findall(r"[a-zA-Z_]\w*", rest), f"what is {rest!r} of {expression!r}?"
    return Names(metrics, labels)


def alerts() -> list[dict[str, Any]]:
    """Every alert of the generated file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Every panel of the generated dashboard but the rows."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def variables() -> dict[str, str]:
    """The dashboard's variables that are asked of Prometheus: the expression, and the label that is shown of it."""
    listed = json.loads(DASHBOARD.read_text())["templating"]["list"]
    asked = " ".join(variable["query"]["query"] for variable in listed if variable["type"] == "query")
    return dict(re.findall(r"label_values\((.*?), (\w+)\)", asked))


def resolved(expression: str) -> str:
    """As Grafana sends it, with every variable at All."""
    for name, value in (("$__rate_interval", "1m"), ("$namespace", ".*"), ("$pod", ".*"), ("$pool", ".*")):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression
