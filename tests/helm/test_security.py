"""Every pod fits the restricted profile of the Pod Security Standards, by the rules as they are written there."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.helm.harness import CI, Object, container, manifests, pod, pod_specs

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def violations(spec: Object) -> list[str]:
    """What the restricted profile, baseline included, has against a pod."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    whole = spec.get("securityContext", {})
    found += of_context(whole)
    for volume in spec.get("volumes", []):
        found += [f"volume {kind}" for kind in set(volume) - {"name"} - VOLUMES]
    every = [*spec.get("initContainers", []), *spec["containers"], *spec.get("ephemeralContainers", [])]
    for each in every:
        own = each.get("securityContext", {})
        found += of_context(own)
        found += of_container(own)
        found += ["hostPort" for port in each.get("ports", []) if port.get("hostPort")]
        if not own.get("runAsNonRoot", whole.get("runAsNonRoot")):
            found.append("runAsNonRoot")
        seccomp = own.get("seccompProfile", whole.get("seccompProfile", {})).get("type")
        if seccomp not in ("RuntimeDefault", "Localhost"):
            found.append("seccompProfile")
    return found


def of_context(context: Object) -> list[str]:
    found = ["sysctls"] if context.get("sysctls") else []
    if context.get("runAsUser") == 0:
        found.append("runAsUser")
    if context.get("windowsOptions", {}).get("hostProcess"):
        found.append("hostProcess")
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in SELINUX or selinux.get("user") or selinux.get("role"):
        found.append("seLinuxOptions")
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
        found.append("appArmorProfile")
    return found


def of_container(context: Object) -> list[str]:
    found = ["privileged"] if context.get("privileged") else []
    if context.get("allowPrivilegeEscalation") is not False:
        found.append("allowPrivilegeEscalation")
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        found.append("capabilities")
    if context.get("procMount", "Default") != "Default":
        found.append("procMount")
    return found


@pytest.mark.parametrize("name", CI)
def test_every_pod_is_restricted(name: str) -> None:
    specs = pod_specs(manifests(name))
    assert specs
    for spec in specs:
        assert violations(spec) == []


@pytest.mark.parametrize(
    ("where", "change", "violation"),
    [
        ("pod", {"hostNetwork": True}, "hostNetwork"),
        ("pod", {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "volume hostPath"),
        ("pod", {"securityContext": {"runAsNonRoot": True}}, "seccompProfile"),
        ("pod", {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}, "runAsNonRoot"),
        ("container", {"securityContext": {}}, "allowPrivilegeEscalation"),
        ("container", {"ports": [{"containerPort": 1, "hostPort": 1}]}, "hostPort"),
        ("context", {"capabilities": {"drop": ["NET_RAW"]}}, "capabilities"),
        ("context", {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}, "capabilities"),
        ("context", {"privileged": True}, "privileged"),
        ("context", {"runAsUser": 0}, "runAsUser"),
        ("context", {"runAsNonRoot": False}, "runAsNonRoot"),
    ],
)
def test_what_is_not_restricted_is_found(where: str, change: dict[str, Any], violation: str) -> None:
    spec = copy.deepcopy(pod(manifests("default")))
    main = spec["containers"][0]
    {"pod": spec, "container": main, "context": main["securityContext"]}[where].update(change)
    assert violation in violations(spec)


@pytest.mark.parametrize("name", CI)
def test_the_root_file_system_is_read_only(name: str) -> None:
    objects = manifests(name)
    ours = [c for s in pod_specs(objects) for c in [*s.get("initContainers", []), *s["containers"]]]
    ours = [c for c in ours if c["name"] in ("entrypoint", "inject", "test")]
    assert ours
    assert all(c["securityContext"]["readOnlyRootFilesystem"] for c in ours)
    writable = {mount["mountPath"] for mount in container(objects)["volumeMounts"] if not mount.get("readOnly")}
    assert writable - {"/home/web"} == {"/tmp", "/run/entrypoint"}


def test_pods_get_no_token_and_no_links_unless_asked_for() -> None:
    for name in set(CI) - {"everything"}:
        for found in manifests(name):
            if found["kind"] == "ServiceAccount":
                assert found["automountServiceAccountToken"] is False
        for spec in pod_specs(manifests(name)):
            assert spec["automountServiceAccountToken"] is False
            assert spec["enableServiceLinks"] is False


def test_any_uid_will_do() -> None:
    none: dict[str, Any] = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
    objects = manifests({"podSecurityContext": none})
    assert "runAsUser" not in {key for key, value in pod(objects)["securityContext"].items() if value is not None}
    variables = {variable["name"]: variable.get("value") for variable in container(objects)["env"]}
    assert (variables["HOME"], variables["TMPDIR"]) == ("/tmp", "/tmp")
