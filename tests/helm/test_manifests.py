"""What is rendered is what Kubernetes takes, in every version; and it fits together."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from tests.helm.harness import CHART, CI, NEWEST, VERSIONS, Object, kinds, manifests, rendered, workload

CRDS = yaml.safe_load(Path(__file__).with_name("crds.yaml").read_text())["definitions"]
CUSTOM = ("PodMonitor", "ServiceMonitor", "PrometheusRule", "ScaledObject")
WITHOUT_SLEEP = "1.29"


@cache
def folder(version: str) -> tuple[str, Any]:
    """Where the strict schemas of a version are, and what they refer to."""
    name = f"kubernetes-json-schema/v{version}.0-local-strict"
    return name, Resource.from_contents(schema_contents(f"{name}/_definitions.json", version)) @ Registry()


@cache
def validator(kind: str, api_version: str, version: str) -> jsonschema.Draft202012Validator:
    name, registry = folder(version)
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)  # networking.k8s.io/v1 -> networking-v1
    schema = schema_contents(f"{name}/{kind.lower()}-{group}.json", version)
    return jsonschema.Draft202012Validator(schema, registry=Resource.from_contents(schema) @ registry)


def check(found: Object, version: str) -> None:
    kind = found["kind"]
    if kind in CUSTOM:
        jsonschema.Draft7Validator({**CRDS[kind], "definitions": CRDS}).validate(found)
    else:
        validator(kind, found["apiVersion"], version).validate(found)


def test_the_version_of_kubernetes_changes_nothing_but_what_is_refused() -> None:
    sources = [path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file()]
    uses = [line for text in sources for line in text.splitlines() if ".Capabilities" in line]
    assert all("semverCompare" in line or "$found = append $found" in line for line in uses), uses
    for name in ("default", "job", "monitored"):
        assert rendered(name, WITHOUT_SLEEP) == rendered(name, NEWEST)


@pytest.mark.parametrize("name", CI)
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(name: str, version: str) -> None:
    for found in manifests(name):
        check(found, version)


def test_the_schemas_are_strict() -> None:
    for found in [*manifests("everything"), *manifests("keda"), *manifests("monitored")]:
        misspelt = json.loads(json.dumps(found).replace('"metadata"', '"metadatum"', 1))
        with pytest.raises(jsonschema.ValidationError):
            check(misspelt, NEWEST)


def test_every_kind_of_object_is_rendered_by_some_values() -> None:
    found = {kind for name in CI for kind in kinds(manifests(name))}
    core = {"ConfigMap", "Deployment", "Job", "Service", "ServiceAccount", "HorizontalPodAutoscaler", "Pod"}
    assert found == core | {"NetworkPolicy", "PodDisruptionBudget"} | set(CUSTOM)


@pytest.mark.parametrize("name", CI)
def test_no_two_objects_have_one_name(name: str) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests(name)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", CI)
def test_selectors_find_the_pods_and_only_them(name: str) -> None:
    objects = manifests(name)
    labels = workload(objects)["spec"]["template"]["metadata"]["labels"]
    others = [each["metadata"]["labels"] for each in objects if each["kind"] == "Pod"]
    selectors = list(selectors_of_pods(objects))
    assert selectors or name == "job"
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= other.items() for other in others), "the pod of helm test is found, too"


def selectors_of_pods(objects: list[Object]) -> list[dict[str, str]]:
    found = []
    for each in objects:
        spec = each.get("spec", {})
        if each["kind"] == "Service":
            found.append(spec["selector"])
        elif each["kind"] in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
            found.append(spec["selector"]["matchLabels"])
        elif each["kind"] == "NetworkPolicy":
            found.append(spec["podSelector"]["matchLabels"])
    return found


@pytest.mark.parametrize("name", CI)
def test_what_is_mounted_exists_and_every_place_is_used_once(name: str) -> None:
    spec = workload(manifests(name))["spec"]["template"]["spec"]
    volumes = [volume["name"] for volume in spec["volumes"]]
    assert len(set(volumes)) == len(volumes)
    mounted = set()
    for each in [*spec.get("initContainers", []), *spec["containers"]]:
        mounts = each.get("volumeMounts", [])
        places = [mount["mountPath"] for mount in mounts]
        assert len(set(places)) == len(places)
        mounted |= {mount["name"] for mount in mounts}
    assert mounted == set(volumes)


@pytest.mark.parametrize("name", CI)
def test_a_port_that_is_named_exists(name: str) -> None:
    objects = manifests(name)
    (main,) = (c for c in workload(objects)["spec"]["template"]["spec"]["containers"] if c["name"] == "entrypoint")
    names = [port["name"] for port in main["ports"] if "name" in port]
    numbers = [port["containerPort"] for port in main["ports"]]
    assert len(set(names)) == len(names)
    assert len(set(numbers)) == len(numbers)
    probes = [main[probe]["httpGet"]["port"] for probe in main if probe.endswith("Probe")]
    targets = [port["targetPort"] for each in objects if each["kind"] == "Service" for port in each["spec"]["ports"]]
    known = {*names, *numbers, *(targets if name == "existing-configmap" else [])}  # there it is the user's word
    assert {*probes, *targets} <= known


@pytest.mark.parametrize("name", CI)
def test_variables_have_one_value_each(name: str) -> None:
    for spec in (each["spec"]["template"]["spec"] for each in manifests(name) if each["kind"] in ("Deployment", "Job")):
        for each in spec["containers"]:
            names = [variable["name"] for variable in each.get("env", [])]
            assert len(set(names)) == len(names)


def test_long_names_stay_valid() -> None:
    release = "a" * 53  # the longest that helm takes
    for values in ("everything", "job"):
        for found in manifests(values, release=release):
            name = found["metadata"]["name"]
            assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) or found["kind"] == "ConfigMap", name
            labels = found["metadata"].get("labels", {})
            assert all(len(value) <= 63 for value in labels.values())
    assert len(workload(manifests("job", release=release))["metadata"]["name"]) <= 57  # and five letters for a pod
