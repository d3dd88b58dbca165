"""Renders the chart with the real helm, each rendering once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/entrypoint"
CI = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")))
VERSIONS = tuple(f"1.{minor}" for minor in range(29, 38))  # of Kubernetes
NEWEST = VERSIONS[-1]

Object = dict[str, Any]


@cache
def program(name: str) -> str:
    """Helm beside the interpreter that runs the tests, or on PATH."""
    here = Path(sys.executable).with_name(name)
    found = str(here) if here.exists() else shutil.which(name)
    if found is None:
        pytest.fail(f"cannot find {name}: scripts/install-helm {here.parent}")
    return found


def helm(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Helm, with no cluster to speak to."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("KUBE", "HELM"))}
    environ |= {"KUBECONFIG": "/nonexistent", "GOGC": "off"}  # so short a process needs no garbage collector
    command = [program("helm"), *words]
    return subprocess.run(
        command, input=stdin, env=environ, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


@cache
def _template(words: tuple[str, ...], stdin: str | None) -> subprocess.CompletedProcess[str]:
    return helm("template", *words, stdin=stdin)


def _run(
    values: Object | str, kube: str, release: str = "web", base: str = "default"
) -> subprocess.CompletedProcess[str]:
    """`values`: the name of a file in ci, or mappings laid over such a file."""
    words = [release, str(CHART), "--namespace", "shop", "--kube-version", kube]
    if isinstance(values, str):
        return _template((*words, "--values", str(ci_file(values))), None)
    words += ["--values", str(ci_file(base))] if base else []
    return _template((*words, "--values", "-"), json.dumps(values))


def ci_file(name: str) -> Path:
    return CHART / f"ci/{name}-values.yaml"


def manifests(values: Object | str, kube: str = NEWEST, release: str = "web", base: str = "default") -> list[Object]:
    """Every object that is rendered."""
    done = _run(values, kube, release, base)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if document]


def rendered(values: Object | str, kube: str = NEWEST) -> str:
    """The same as text."""
    done = _run(values, kube)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(values: Object | str, kube: str = NEWEST, base: str = "default") -> str:
    """What is said of values that cannot be rendered."""
    done = _run(values, kube, base=base)
    assert done.returncode != 0, done.stdout
    assert "nil pointer" not in done.stderr
    return done.stderr


def kinds(objects: list[Object]) -> list[str]:
    return sorted(found["kind"] for found in objects)


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    """The only object of a kind, or the one with that name."""
    found = [each for each in objects if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name}: {kinds(objects)}"
    return found[0]


def workload(objects: list[Object]) -> Object:
    (found,) = (each for each in objects if each["kind"] in ("Deployment", "Job"))
    return found


def pod(objects: list[Object]) -> Object:
    """The spec of the workload's pods."""
    spec: Object = workload(objects)["spec"]["template"]["spec"]
    return spec


def container(objects: list[Object]) -> Object:
    """The container that runs the entrypoint."""
    (found,) = (each for each in pod(objects)["containers"] if each["name"] == "entrypoint")
    assert isinstance(found, dict)
    return found


def pod_specs(objects: list[Object]) -> list[Object]:
    """Of all pods, that of `helm test` included."""
    templates = [each["spec"]["template"]["spec"] for each in objects if each["kind"] in ("Deployment", "Job")]
    return templates + [each["spec"] for each in objects if each["kind"] == "Pod"]


def config(objects: list[Object]) -> Object:
    """What the master will read."""
    text = next(each["data"]["config.yaml"] for each in objects if "config.yaml" in each.get("data", {}))
    found: Object = yaml.safe_load(text)
    return found
