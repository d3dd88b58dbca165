"""The chart as a package: lint, version, what is generated, what it says after an installation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from functools import cache
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from entrypoint import __version__
from entrypoint.config.schema import json_schema
from tests.helm.harness import CHART, CI, ROOT, ci_file, helm

if TYPE_CHECKING:
    from pathlib import Path

GENERATED = ("values.schema.json", "README.md")
CHART_YAML = yaml.safe_load((CHART / "Chart.yaml").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def test_what_is_generated_is_up_to_date(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "helm/generate", tmp_path], check=True, timeout=60)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(GENERATED)
    for name in GENERATED:
        assert (tmp_path / name).read_text() == (CHART / name).read_text(), f"{name} is old: helm/generate"


@pytest.mark.parametrize("name", ["", *CI])
def test_lint_has_nothing_to_say(name: str) -> None:
    words = ["--values", str(ci_file(name))] if name else []
    done = helm("lint", "--strict", "--kube-version", "1.37.0", str(CHART), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"\[(WARNING|ERROR)\]", done.stdout)


def test_it_can_be_packaged_and_installed_from_the_package(tmp_path: Path) -> None:
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    package = tmp_path / f"entrypoint-{__version__}.tgz"
    with tarfile.open(package) as archive:
        names = set(archive.getnames())
    assert {f"entrypoint/{name}" for name in (*GENERATED, "files/ask.py", "files/inject.py")} <= names
    assert not [name for name in names if "/ci/" in name]
    assert helm("template", "web", str(package), "--values", str(ci_file("inject"))).returncode == 0


def test_it_has_the_version_of_the_entrypoint() -> None:
    assert CHART_YAML["version"] == CHART_YAML["appVersion"] == __version__
    assert CHART_YAML["kubeVersion"] == ">=1.29.0-0"
    assert CHART_YAML["annotations"]["artifacthub.io/license"] == "MIT"
    assert yaml.safe_load(CHART_YAML["annotations"]["artifacthub.io/changes"])


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        return [leaf for key, below in value.items() for leaf in leaves(below, (*path, key))]
    return [path]


def test_every_value_is_described() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| (.+) \|$", (CHART / "README.md").read_text(), re.MULTILINE)
    described = {tuple(name.split(".")): default for name, default, text in rows if len(text) > 4}
    for leaf in leaves(VALUES):
        assert any(leaf[: len(name)] == name for name in described), f"no word about {'.'.join(leaf)}"
    for name, default in described.items():
        value = VALUES
        for key in name:
            value = value[key]
        assert json.loads(default.replace(r"\|", "|")) == value


def strict(schema: Any) -> bool:
    """Whether whatever is a mapping of ours says which keys it has."""
    if isinstance(schema, list):
        return all(map(strict, schema))
    if not isinstance(schema, dict):
        return True
    if "properties" in schema and "items" not in schema and schema.get("additionalProperties") is not False:
        return set(schema["properties"]) <= {"port", "value"}  # Kubernetes' own
    return all(strict(value) for value in schema.values())


def test_the_schema_is_valid_and_strict() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert strict(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)
    assert {"global", "enabled"} == set(SCHEMA["properties"]) - set(VALUES)
    described = [key for key, value in SCHEMA["properties"].items() if "description" in value or "properties" in value]
    assert set(described) == set(SCHEMA["properties"])
    assert "(?" not in re.sub(r"\(\?:", "", json.dumps(SCHEMA)), "Go has no such regular expressions"


def test_the_schema_knows_every_key_of_the_configuration() -> None:
    def keys(schema: Any, path: str = "") -> set[str]:
        if isinstance(schema, list):
            return {key for each in schema for key in keys(each, path)}
        if not isinstance(schema, dict):
            return set()
        found = {f"{path}.{key}" for key in schema.get("properties", {})}
        for key, value in schema.items():
            below = value.items() if key == "properties" else [("*", value)]
            found |= {name for word, each in below for name in keys(each, f"{path}.{word}" if word != "*" else path)}
        return found

    assert keys(SCHEMA["definitions"]["config"]) == keys(json_schema())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "default",
            ["exec deployment/web-entrypoint -c entrypoint -- entrypoint status", "http://127.0.0.1:9180/readyz"],
        ),
        ("default", ["helm -n shop test web", "http is served at web-entrypoint.shop:8000", "There is one pod only"]),
        ("default", ["A pod has 32 s to stop; stopping can take 32 s (drain delay 5 + web 20 + 2 + 5)."]),
        ("monitored", ["port-forward deployment/shop 9999", "A change of the configuration replaces the pods."]),
        (
            "inject",
            ["-- /opt/entrypoint/bin/entrypoint status", "Taken for a SIGTERM: INT, PWR, QUIT, RTMIN+3, WINCH."],
        ),
        ("default", ["the STOPSIGNAL of its image, which must be SIGTERM"]),
        ("hot", ["reaches the running pods"]),
        ("job", ["logs -f -l app.kubernetes.io/instance=web", "A change of the configuration makes another Job."]),
        ("existing-configmap", ["A pod has 60 s to stop.", "A change of the ConfigMap web-config reaches the running"]),
    ],
)
def test_the_notes_tell_the_next_step(name: str, said: list[str]) -> None:
    for text in said:
        assert text in notes(name)


def test_the_notes_of_a_job_say_nothing_of_pods_that_go_on() -> None:
    assert "one pod" not in notes("job")


def test_the_notes_tell_that_a_foreign_configmap_replaces_nothing() -> None:
    said = notes("existing-configmap", "--set", "reload=rollout")
    assert "A change of the ConfigMap web-config waits for new pods:" in said
    assert "rollout restart deployment/web-entrypoint" in said
    assert "is for the next Job" in notes("existing-configmap", "--set", "kind=Job,autoscaling.mode=none")


@pytest.mark.parametrize("name", CI)
def test_the_notes_have_no_holes(name: str) -> None:
    assert "<no value>" not in notes(name)
    assert not re.search(r"\n{3,}", notes(name))


@cache
def notes(name: str, *more: str) -> str:
    words = ("--namespace", "shop", "--dry-run=client", "--values", str(ci_file(name)), *more)
    done = helm("install", "web", str(CHART), *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]
