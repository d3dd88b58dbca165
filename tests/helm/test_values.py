"""What each value changes in what is rendered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from entrypoint.config.auto import auto_workers
from entrypoint.config.load import Request, load
from entrypoint.config.spec import Auto
from entrypoint.linux.cgroup import Limits
from tests.helm.harness import (
    CHART,
    NEWEST,
    Object,
    ci_file,
    config,
    container,
    helm,
    kinds,
    manifests,
    one,
    pod,
    workload,
)

if TYPE_CHECKING:
    from pathlib import Path

BARE = ["ConfigMap", "Deployment", "Pod", "Service", "Service", "ServiceAccount"]


def variables(objects: list[Object]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(objects)["env"]}


def pod_annotations(objects: list[Object]) -> dict[str, str]:
    found: dict[str, str] = workload(objects)["spec"]["template"]["metadata"]["annotations"]
    return found


def mounts(objects: list[Object]) -> dict[str, Object]:
    return {mount["mountPath"]: mount for mount in container(objects)["volumeMounts"]}


def test_the_least_renders_no_more_than_it_must() -> None:
    assert kinds(manifests("default")) == BARE


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"podMonitor": {"enabled": True}}, "PodMonitor"),
        ({"serviceMonitor": {"enabled": True}}, "ServiceMonitor"),
        ({"prometheusRule": {"enabled": True}}, "PrometheusRule"),
        ({"dashboard": {"enabled": True}}, "ConfigMap"),
        ({"networkPolicy": {"enabled": True}}, "NetworkPolicy"),
        ({"podDisruptionBudget": {"enabled": True}}, "PodDisruptionBudget"),
        ({"extraObjects": [{"apiVersion": "v1", "kind": "Secret"}]}, "Secret"),
    ],
)
def test_a_switch_brings_one_object(values: Object, kind: str) -> None:
    assert kinds(manifests(values)) == sorted([*BARE, kind])


@pytest.mark.parametrize(
    ("values", "gone"),
    [
        ({"service": {"enabled": False}}, ["Service"]),
        ({"tests": {"enabled": False}}, ["Pod", "Service"]),
        ({"serviceAccount": {"create": False}}, ["ServiceAccount"]),
    ],
)
def test_a_switch_takes_objects_away(values: Object, gone: list[str]) -> None:
    assert sorted([*kinds(manifests(values)), *gone]) == BARE


def test_what_is_filled_in() -> None:
    found = config(manifests("default"))
    assert found.pop("observer") == {"bind": ":9180"}
    assert found.pop("control") == {"socket": "/run/entrypoint/control.sock"}
    assert found.pop("reload") == {"watch": False}
    assert found.pop("shutdown") == {"grace_period": "32s"}
    assert set(found) == {"pools", "sockets"}


def test_what_is_written_stays() -> None:
    found = config(manifests("monitored"))
    assert found["observer"] == {"bind": "0.0.0.0:9999"}
    assert found["control"] == {"socket": "/tmp/control.sock"}
    assert config(manifests({"config": {"control": {"enabled": False}}}))["control"]["enabled"] is False
    everything = config(manifests("everything"))
    assert everything["shutdown"] == {"drain_delay": "7s", "grace_period": "85s"}
    web = everything["pools"]["web"]
    assert (web["env"]["ANSWER"], web["umask"], web["rlimits"]["nofile"]) == ("NO", "022", 1048576)
    assert everything["init"][0]["env"] == {"MODE": "1.10"}


def test_the_observers_port_is_the_same_everywhere() -> None:
    objects = manifests("monitored")
    main = container(objects)
    assert {"name": "observer", "containerPort": 9999, "protocol": "TCP"} in main["ports"]
    assert {main[probe]["httpGet"]["port"] for probe in main if probe.endswith("Probe")} == {"observer"}
    assert one(objects, "Service", "shop-observer")["spec"]["ports"][0]["port"] == 9999
    assert "9999" in one(objects, "Pod")["spec"]["containers"][0]["command"]


def test_a_rollout_replaces_the_pods() -> None:
    objects = manifests("default")
    assert config(objects)["reload"] == {"watch": False}
    other = manifests({"config": {"pools": {"web": {"workers": 7}}}})
    assert pod_annotations(objects)["checksum/config"] != pod_annotations(other)["checksum/config"]


def test_a_hot_reload_leaves_the_pods_alone() -> None:
    objects = manifests({"reload": "hot"})
    other = manifests({"reload": "hot", "config": {"pools": {"web": {"workers": 7}}}})
    assert config(objects)["reload"] == {"watch": True}
    assert config(objects) != config(other)
    assert workload(objects) == workload(other)
    assert not [name for name in pod_annotations(objects) if "checksum" in name]


@pytest.mark.parametrize("changed", [{"stop": {"timeout": "25s"}}, {"boot_timeout": "90s"}])
def test_a_hot_reload_replaces_pods_only_for_what_the_pod_has_to_know(changed: dict[str, Any]) -> None:
    def template(pool: dict[str, Any], **more: int) -> Any:
        return workload(manifests({"reload": "hot", "config": {"pools": {"web": pool}}, **more}))["spec"]["template"]

    assert template(changed) != template({})
    own = {"terminationGracePeriodSeconds": 60, "startupBudgetSeconds": 120}
    assert template(changed, **own) == template({}, **own)


@pytest.mark.parametrize("reload", ["hot", "rollout"])
def test_the_configuration_is_mounted_as_a_folder(reload: str) -> None:
    objects = manifests({"reload": reload})
    assert mounts(objects)["/etc/entrypoint"] == {"name": "config", "mountPath": "/etc/entrypoint", "readOnly": True}
    (volume,) = (each for each in pod(objects)["volumes"] if each["name"] == "config")
    assert volume["configMap"] == {"name": "web-entrypoint"}


def test_an_existing_configmap_gets_by_variables_what_would_be_filled_in(tmp_path: Path) -> None:
    objects = manifests("existing-configmap")
    assert "ConfigMap" not in kinds(objects)
    (volume,) = (each for each in pod(objects)["volumes"] if each["name"] == "config")
    assert volume["configMap"] == {"name": "web-config"}
    found = {name: value for name, value in variables(objects).items() if "__" in name}
    assert found == {
        "ENTRYPOINT_OBSERVER__BIND": ":9180",
        "ENTRYPOINT_CONTROL__SOCKET": "/run/entrypoint/control.sock",
        "ENTRYPOINT_RELOAD__WATCH": "true",
        "ENTRYPOINT_SHUTDOWN__GRACE_PERIOD": "60s",
    }
    path = tmp_path / "config.yaml"
    path.write_text("pools: {web: {command: [web]}}")
    spec = load(Request(str(path), strict_grace=True), found).spec
    assert (spec.observer.socket.port, spec.control.socket) == (9180, "/run/entrypoint/control.sock")
    assert (spec.reload.watch, spec.shutdown.grace_period) == (True, 60.0)
    assert container(objects)["startupProbe"]["failureThreshold"] == 60
    assert not [name for name in variables(manifests("default")) if "__" in name]
    assert container(objects)["envFrom"] == [{"secretRef": {"name": "web-secrets"}}]


def test_cpus_come_from_the_request_without_rounding() -> None:
    found = variables(manifests("queue"))
    field = {"containerName": "entrypoint", "resource": "requests.cpu", "divisor": "1m"}
    assert found["ENTRYPOINT_MILLICPUS"] == {"resourceFieldRef": field}
    assert found["ENTRYPOINT_CPUS"] == "$(ENTRYPOINT_MILLICPUS)m"
    environ = {"ENTRYPOINT_CPUS": found["ENTRYPOINT_CPUS"].replace("$(ENTRYPOINT_MILLICPUS)", "1500")}
    assert auto_workers(Auto(per_cpu=2), Limits(None, None, 8), environ) == (3, None)
    assert list(found).index("ENTRYPOINT_MILLICPUS") < list(found).index("ENTRYPOINT_CPUS"), "a reference looks back"
    assert "ENTRYPOINT_CPUS" not in variables(manifests({"resources": {"limits": {"cpu": 1}}}))
    own = {"resources": {"requests": {"cpu": 1}}, "extraEnv": [{"name": "ENTRYPOINT_CPUS", "value": "3"}]}
    assert variables(manifests(own))["ENTRYPOINT_CPUS"] == "3"


def test_the_entrypoint_can_be_injected() -> None:
    objects = manifests("inject")
    main = container(objects)
    assert main["image"] == "example/plain:1"
    assert main["command"] == ["/opt/entrypoint/bin/entrypoint", "run", "-c", "/etc/entrypoint/config.yaml"]
    assert main["args"] == ["--", "gunicorn", "--workers", "1", "app:app"]
    assert mounts(objects)["/opt/entrypoint"]["readOnly"] is True
    first, second = pod(objects)["initContainers"]
    assert (first["name"], first["image"]) == ("inject", "example/entrypoint:0.1.0")
    assert first["volumeMounts"] == [{"name": "inject", "mountPath": "/inject"}]
    assert second["name"] == "certificates"
    (test,) = one(objects, "Pod")["spec"]["containers"]
    assert test["image"] == "example/entrypoint:0.1.0"


def test_an_image_with_the_entrypoint_keeps_its_own_command() -> None:
    objects = manifests({"args": ["sleep", "1"]})
    assert "command" not in container(objects)
    assert container(objects)["args"] == ["--", "sleep", "1"]
    assert "initContainers" not in pod(objects)
    assert container(manifests({"command": ["entrypoint", "run"]}))["command"] == ["entrypoint", "run"]
    assert container(manifests("hot"))["image"].startswith("example/web@sha256:0123")


@pytest.mark.parametrize("mode", ["hpa", "keda", "external"])
def test_only_one_decides_how_many_pods_there_are(mode: str) -> None:
    more: Object = {"autoscaling": {"mode": mode, "keda": {"triggers": [{"type": "cron", "metadata": {"a": "b"}}]}}}
    objects = manifests({**more, "replicaCount": 5, "resources": {"requests": {"cpu": 1}}})
    assert "replicas" not in workload(objects)["spec"]
    scalers = [each for each in objects if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    assert len(scalers) == (mode != "external")
    for scaler in scalers:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload(objects)["metadata"]["name"]}
        assert scaler["spec"]["scaleTargetRef"] == target
    assert workload(manifests({"replicaCount": 5}))["spec"]["replicas"] == 5


@pytest.mark.parametrize(
    ("values", "there"),
    [
        ({}, False),
        ({"replicaCount": 2}, True),
        ({"replicaCount": 2, "podDisruptionBudget": {"enabled": False}}, False),
        ({"podDisruptionBudget": {"enabled": True}}, True),
        ({"autoscaling": {"mode": "external"}}, True),
        ({"autoscaling": {"mode": "hpa"}, "resources": {"requests": {"cpu": 1}}}, True),
        ({"autoscaling": {"mode": "hpa", "minReplicas": 1}, "resources": {"requests": {"cpu": 1}}}, False),
    ],
)
def test_more_than_one_pod_has_a_disruption_budget(values: Object, there: bool) -> None:  # noqa: FBT001 - a table
    objects = manifests(values)
    assert ("PodDisruptionBudget" in kinds(objects)) is there
    if there:
        spec = one(objects, "PodDisruptionBudget")["spec"]
        assert (spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def test_pods_are_replaced_one_more_at_a_time_and_never_one_less() -> None:
    spec = workload(manifests("default"))["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert spec["minReadySeconds"] == 10
    assert workload(manifests({"strategy": {"type": "Recreate"}}))["spec"]["strategy"] == {"type": "Recreate"}


def test_pods_are_spread_over_nodes() -> None:
    (spread,) = pod(manifests("default"))["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert "topologySpreadConstraints" not in pod(manifests({"topologySpreadConstraints": []}))
    assert pod(manifests("everything"))["topologySpreadConstraints"][0]["topologyKey"] == "topology.kubernetes.io/zone"


def test_the_service_has_the_tcp_sockets_that_can_be_reached() -> None:
    objects = manifests("monitored")
    ports = one(objects, "Service", "shop")["spec"]["ports"]
    assert {port["name"]: port["port"] for port in ports} == {"http": 8000, "admin-of-the-shop": 8001, "8443": 8443}
    named = {port["containerPort"]: port.get("name") for port in container(objects)["ports"]}
    assert named == {9999: "observer", 8000: "http", 8001: None, 8443: None}
    assert kinds(manifests("queue")).count("Service") == 1, "a unix socket is none for a Service"


def test_the_service_can_be_the_users() -> None:
    found = one(manifests("everything"), "Service", "web")
    assert found["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}]
    assert (found["spec"]["type"], found["spec"]["externalTrafficPolicy"]) == ("LoadBalancer", "Local")


def test_metrics_are_scraped_to_the_end_of_a_drain() -> None:
    objects = manifests("monitored")
    monitor = one(objects, "ServiceMonitor")
    services = [each for each in objects if each["kind"] == "Service"]
    selected = [
        each for each in services
        if monitor["spec"]["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
    ]  # fmt: skip
    assert [each["metadata"]["name"] for each in selected] == ["shop-observer"]
    assert selected[0]["spec"]["publishNotReadyAddresses"] is True
    assert monitor["spec"]["endpoints"] == [{"port": "observer", "path": "/metrics"}]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_probes_ask_the_observer_or_what_the_user_says() -> None:
    main = container(manifests("default"))
    asked = {probe: main[probe]["httpGet"]["path"] for probe in main if probe.endswith("Probe")}
    assert asked == {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    assert all(main[probe]["timeoutSeconds"] >= 2 for probe in asked), "the observer itself waits 1 s for the master"
    own = container(manifests("everything"))["readinessProbe"]
    assert own["httpGet"] == {"path": "/healthz", "port": "http"}
    assert own["periodSeconds"] == 5


def test_a_sleep_before_the_stop_is_kubernetes_own() -> None:
    assert container(manifests("everything"))["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert "lifecycle" not in container(manifests("default"))


def test_the_network_policy_lets_in_whom_it_should() -> None:
    sockets, observer = one(manifests("everything"), "NetworkPolicy")["spec"]["ingress"]
    assert sockets["from"] == [{"podSelector": {"matchLabels": {"app": "gateway"}}}]
    test, prometheus = observer["from"]
    labels = one(manifests("everything"), "Pod")["metadata"]["labels"]
    assert test["podSelector"]["matchLabels"].items() <= labels.items()
    assert prometheus == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    plain = one(manifests({"networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]
    assert plain["policyTypes"] == ["Ingress"]
    assert "from" not in plain["ingress"][0]
    closed = one(manifests({"networkPolicy": {"enabled": True, "egress": []}}), "NetworkPolicy")["spec"]
    assert closed["policyTypes"] == ["Ingress", "Egress"]


def test_a_job_ends_and_says_how() -> None:
    objects = manifests("job")
    assert kinds(objects) == ["ConfigMap", "Job", "PodMonitor", "PrometheusRule", "ServiceAccount"]
    spec = workload(objects)["spec"]
    assert (spec["backoffLimit"], spec["completions"], spec["parallelism"]) == (2, 5, 2)
    assert (spec["completionMode"], spec["activeDeadlineSeconds"]) == ("Indexed", 3600)
    assert spec["ttlSecondsAfterFinished"] == 86400
    assert pod(objects)["restartPolicy"] == "Never"
    fail, ignore = spec["podFailurePolicy"]["rules"]
    assert fail == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "entrypoint", "operator": "In", "values": [78, 126, 127]},
    }
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert "readinessProbe" not in container(objects)
    assert "startupProbe" not in container(objects)
    assert container(objects)["livenessProbe"]["httpGet"]["path"] == "/livez"


@pytest.mark.parametrize("reload", ["hot", "rollout"])
def test_another_configuration_is_another_job(reload: str) -> None:
    def name(workers: int = 1, **more: Any) -> str:
        config = {"pools": {"web": {"restart": {"policy": "never"}, "workers": workers}}}
        objects = manifests({"kind": "Job", "reload": reload, "config": config, **more})
        found: str = workload(objects)["metadata"]["name"]
        return found

    assert name() == name(commonAnnotations={"a": "b"})
    assert len({name(), name(workers=2), name(args=["other"])}) == 3


def test_names() -> None:
    assert workload(manifests("default"))["metadata"]["name"] == "web-entrypoint"
    assert workload(manifests("default", release="my-entrypoint"))["metadata"]["name"] == "my-entrypoint"
    assert workload(manifests({"nameOverride": "api"}))["metadata"]["name"] == "web-api"
    assert workload(manifests({"fullnameOverride": "shop"}))["metadata"]["name"] == "shop"


def test_labels_and_annotations_of_the_user_are_on_everything() -> None:
    for found in manifests("everything"):
        if found["metadata"]["name"] in ("web-more", "web-text"):
            continue  # the user's own
        assert found["metadata"]["labels"]["team"] == "shop"
        assert found["metadata"]["annotations"]["example.com/owner"] == "shop"
    template = workload(manifests("everything"))["spec"]["template"]["metadata"]
    assert (template["labels"]["team"], template["labels"]["tier"]) == ("shop", "front")
    assert template["annotations"]["example.com/build"] == "7"


def test_a_label_of_the_user_does_not_break_a_selector() -> None:
    labels = {"app.kubernetes.io/name": "mine", "app.kubernetes.io/version": "7"}
    objects = manifests({"commonLabels": labels, "podLabels": labels})
    found = workload(objects)
    assert found["metadata"]["labels"]["app.kubernetes.io/version"] == "7"
    selector = found["spec"]["selector"]["matchLabels"]
    assert selector.items() <= found["spec"]["template"]["metadata"]["labels"].items()


def test_what_is_added_to_the_pod_is_there() -> None:
    objects = manifests("everything")
    spec = pod(objects)
    main = container(objects)
    assert [each["name"] for each in spec["containers"]] == ["entrypoint", "proxy"]
    assert [each["name"] for each in spec["initContainers"]] == ["inject", "wait"]
    assert variables(objects)["HOME"] == "/home/web"
    assert main["envFrom"] == [{"secretRef": {"name": "web-secrets"}}, {"configMapRef": {"name": "web-more"}}]
    assert mounts(objects)["/home/web"]["name"] == "home"
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["tmp"]["emptyDir"] == {"sizeLimit": "100Mi", "medium": "Memory"}
    assert volumes["home"]["emptyDir"] == {}
    assert (spec["hostname"], spec["priorityClassName"], spec["serviceAccountName"]) == ("web", "high", "shop-web")
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert spec["tolerations"][0]["key"] == "spot"
    assert "nodeAffinity" in spec["affinity"]
    assert main["resources"]["limits"]["memory"] == "512Mi"
    assert main["imagePullPolicy"] == "Always"
    assert main["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_extra_objects_are_templates() -> None:
    names = [each["metadata"]["name"] for each in manifests("everything") if each["kind"] == "ConfigMap"]
    assert sorted(names) == ["web", "web-dashboard", "web-more", "web-text"]


def test_the_test_of_a_release_runs_the_python_that_there_is() -> None:
    def first_word(**values: Any) -> str:
        word: str = one(manifests(values), "Pod")["spec"]["containers"][0]["command"][0]
        return word

    own = {"python": "python3"}
    assert first_word() == "/opt/entrypoint/libexec/python3"
    assert first_word(tests=own) == "python3"
    assert first_word(tests=own, inject={"enabled": True}) == "/opt/entrypoint/libexec/python3"


def test_what_set_makes_of_words_stays_text(tmp_path: Path) -> None:
    """The chart's own advice: `--set config.pools.web.command={sleep,1000}`."""
    sets = {
        "image.repository": "nginx",
        "image.tag": "1.27",
        "config.pools.web.command": "{sleep,1000,true,10000000,0660,1.10}",
        "config.pools.web.env.DEBUG": "true",
        "config.pools.web.env.LIMIT": "12345678",
        "args": "{sleep,10000000,false}",
    }
    words = [word for path, value in sets.items() for word in ("--set", f"{path}={value}")]
    done = helm("template", "web", str(CHART), "--kube-version", NEWEST, *words)
    assert done.returncode == 0, done.stderr
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert container(objects)["args"] == ["--", "sleep", "10000000", "false"]
    file = tmp_path / "config.yaml"
    file.write_text(next(each["data"]["config.yaml"] for each in objects if each["kind"] == "ConfigMap"))
    loaded = load(Request(str(file)), {})
    process = loaded.spec.pools[0].process
    assert process.argv == ("sleep", "1000", "true", "10000000", "0660", "1.10")
    assert process.env == (("DEBUG", "true"), ("LIMIT", "12345678"))


@pytest.mark.parametrize(("tag", "image"), [(1, "web:1"), (20261128, "web:20261128"), ("1.10", "web:1.10")])
def test_a_tag_may_be_a_number(tag: int | str, image: str) -> None:
    assert container(manifests({"image": {"repository": "web", "tag": tag}}))["image"] == image
    if isinstance(tag, int):
        words = ("--set", "image.repository=web", "--set", f"image.tag={tag}", "--values", str(ci_file("job")))
        done = helm("template", "web", str(CHART), "--kube-version", NEWEST, *words)
        assert f'image: "{image}"\n' in done.stdout


def test_numbers_of_a_values_file_stay_text(tmp_path: Path) -> None:
    command = ["sleep", 1000, True, 1_000_000, 12_345_678_901]
    objects = manifests({"config": {"pools": {"web": {"command": command, "env": {"A": 10_000_000}}}}})
    file = tmp_path / "config.yaml"
    file.write_text(one(objects, "ConfigMap")["data"]["config.yaml"])
    process = load(Request(str(file)), {}).spec.pools[0].process
    assert process.argv == ("sleep", "1000", "true", "1000000", "12345678901")
    assert dict(process.env)["A"] == "10000000"


def test_a_place_for_anchors(tmp_path: Path) -> None:
    objects = manifests({"config": {"x-anything": {"at": ["all", 1.5]}}})
    file = tmp_path / "config.yaml"
    file.write_text(one(objects, "ConfigMap")["data"]["config.yaml"])
    load(Request(str(file)), {})


IMAGES = {"INT": "shutdown", "QUIT": "shutdown", "WINCH": "shutdown", "PWR": "shutdown", "RTMIN+3": "shutdown"}


@pytest.mark.parametrize(
    ("own", "filled"),
    [
        ({}, IMAGES),
        ({"USR1": "shutdown"}, IMAGES),
        ({"SIGQUIT": "forward", "winch": "ignore", "2": "quit", "37": "reload"}, {"PWR": "shutdown"}),
        ({"sigint": "quit", "3": "quit", "28": "quit", "SIGPWR": "quit", "RTMAX-27": "quit"}, {}),
        ({"INT": "quit", "QUIT": "quit", "WINCH": "quit", "30": "quit", "sigrtmin+3": "quit"}, {}),
    ],
)
def test_an_injected_image_may_have_any_stop_signal(
    own: dict[str, str], filled: dict[str, str], tmp_path: Path
) -> None:
    objects = manifests({"config": {"signals": own}}, base="inject")
    file = tmp_path / "config.yaml"
    file.write_text(one(objects, "ConfigMap")["data"]["config.yaml"])
    assert config(objects).get("signals", {}) == {**filled, **own}
    spec = load(Request(str(file), command=("sleep",)), {}).spec
    if own == {}:
        assert dict(spec.signals) == dict.fromkeys((2, 3, 28, 30, 37), "shutdown")


def test_an_image_with_the_entrypoint_says_itself_what_stops_it() -> None:
    assert "signals" not in config(manifests("default"))


@pytest.mark.parametrize(
    ("release", "service"),
    [("web", "web-entrypoint"), ("1web", "svc-1web-entrypoint"), ("web.prod", "web-prod-entrypoint"),
     ("1.2", "svc-1-2-entrypoint"), (f"9{'a.b' * 17}", f"svc-9{'a-b' * 15}"), ("a" * 53, "a" * 46)],
)  # fmt: skip
def test_a_service_has_a_name_that_every_kubernetes_takes(release: str, service: str) -> None:
    objects = manifests({"serviceMonitor": {"enabled": True}}, release=release)
    names = [each["metadata"]["name"] for each in objects if each["kind"] == "Service"]
    assert sorted(names) == sorted([service, f"{service}-observer"])
    for name in names:
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name)
    assert f"{service}-observer" in one(objects, "Pod")["spec"]["containers"][0]["command"]
