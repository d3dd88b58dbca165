"""The chart takes the values of the end-to-end tests, and their steps change what they are meant to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.e2e.cluster import Cluster
from tests.e2e.release import SELECTOR, Release
from tests.helm.harness import manifests

if TYPE_CHECKING:
    from pathlib import Path


def test_each_step_changes_what_it_is_meant_to(root: Path) -> None:
    release = Release(Cluster("", "none"), root / "helm/entrypoint", "example/web:1")

    def rendered() -> dict[str, Any]:
        found = {(it["kind"], it["metadata"]["name"]): it for it in manifests(release.values)}
        (deployment,) = (it for (kind, _), it in found.items() if kind == "Deployment")
        key, _, value = SELECTOR.partition("=")
        assert deployment["metadata"]["labels"][key] == value
        ports = [p["name"] for (kind, _), it in found.items() if kind == "Service" for p in it["spec"]["ports"]]
        (configmap,) = (it for (kind, _), it in found.items() if kind == "ConfigMap")
        return {"pod": deployment["spec"]["template"], "ports": ports, "config": configmap["data"]}

    first = rendered()
    assert first["ports"].count("http") == 1
    assert first["pod"]["spec"]["terminationGracePeriodSeconds"] >= 5 + 10 + 2
    assert first["pod"]["spec"]["containers"][0]["image"] == "example/web:1"
    release.pool["env"]["GREETING"] = "second"
    second = rendered()
    assert second["config"] != first["config"]
    assert second["pod"] == first["pod"]  # hot
    release.values["podAnnotations"] = {"example.com/release": "2"}
    assert rendered()["pod"] != first["pod"]
