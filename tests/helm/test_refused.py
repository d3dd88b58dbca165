"""Values that do not fit are refused, and it is said which and why."""

from __future__ import annotations

import pytest

from tests.helm.harness import CHART, Object, helm, manifests, refused

PORT = {"config": {"sockets": {"http": {"bind": ":${PORT:-8000}"}}}}
JOB = {"kind": "Job", "config": {"pools": {"web": {"restart": {"policy": "never"}}}}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": {"repository": ""}}, "image.repository: it is empty"),
        ({"image": {"tag": ""}}, "image.tag: there is neither a tag nor a digest"),
        ({"inject": {"enabled": True}, "command": ["x"]}, "command: with inject.enabled"),
        (
            {"existingConfigMap": "x", "terminationGracePeriodSeconds": 60},
            "config: there is an existingConfigMap as well",
        ),
        ({"config": {"pools": {"db": {"workers": 2}}}}, "config.pools.db.command: it is missing"),
        ({"config": {"pools": {"web": {"after": ["db"]}}}}, "config.pools.web.after: no such pool: db"),
        ({"config": {"pools": {"web": {"sockets": ["https"]}}}}, "config.pools.web.sockets: no such socket: https"),
        (
            {"config": {"pools": {"web": {"after": ["db"]}, "db": {"command": ["x"], "after": ["web"]}}}},
            "config.pools: pools wait for each other",
        ),
        ({"config": {"observer": {"enabled": False}}}, "config.observer.enabled: the probes ask the observer"),
        (
            {"config": {"observer": {"bind": "127.0.0.1:9180"}}},
            "config.observer.bind: the probes cannot reach 127.0.0.1",
        ),
        (
            {"config": {"observer": {"bind": "unix:/tmp/x"}}},
            "config.observer.bind: the probes cannot reach unix:/tmp/x",
        ),
        ({"config": {"observer": {"bind": ":0"}}}, "config.observer.bind: the probes cannot reach :0"),
        ({"config": {"reload": {"watch": True}}}, "config.reload.watch: it follows from the value `reload`"),
        ({"config": {"shutdown": {"grace_period": "60s"}}}, "config.shutdown.grace_period: it follows from"),
        (PORT, "service: only the container will know the port of config.sockets.http.bind, :${PORT:-8000}"),
        ({"autoscaling": {"mode": "hpa"}}, "autoscaling.targetCPUUtilizationPercentage: it is a part of resources"),
        (
            {"autoscaling": {"mode": "hpa", "targetCPUUtilizationPercentage": None}},
            "autoscaling.metrics: there is nothing to scale by",
        ),
        (
            {"autoscaling": {"mode": "hpa", "minReplicas": 0}, "resources": {"requests": {"cpu": 1}}},
            "autoscaling.minReplicas: only keda can scale to 0",
        ),
        ({"autoscaling": {"mode": "keda"}}, "autoscaling.keda.triggers: it is empty"),
        (
            {"autoscaling": {"mode": "keda", "minReplicas": 11, "keda": {"triggers": [{"type": "cpu"}]}}},
            "autoscaling.minReplicas: 11 is more than maxReplicas, 10",
        ),
        ({"kind": "Job"}, "kind: the Job would never end: config.pools.web has restart.policy always"),
        ({**JOB, "autoscaling": {"mode": "external"}}, "autoscaling.mode: a Job is not scaled: external"),
        ({**JOB, "podDisruptionBudget": {"enabled": True}}, "podDisruptionBudget.enabled: a Job has none"),
        ({**JOB, "serviceMonitor": {"enabled": True}}, "serviceMonitor.enabled: a Job has no Service"),
        (
            {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}},
            "serviceMonitor.enabled: with podMonitor.enabled every pod would be scraped twice",
        ),
        ({"prometheusRule": {"disabled": ["WorkerOld"]}}, "prometheusRule.disabled: no such alert: WorkerOld"),
    ],
)
def test_what_does_not_fit_together(values: Object, message: str) -> None:
    assert f"cannot render {message}" in refused(values)


def test_the_time_to_stop_goes_with_an_existing_configmap() -> None:
    values: Object = {"image": {"repository": "x", "tag": "1"}, "existingConfigMap": "x"}
    key = "cannot render terminationGracePeriodSeconds"
    assert f"{key}: it cannot be computed from an existingConfigMap" in refused(values, base="")
    values |= {"terminationGracePeriodSeconds": 5, "preStop": {"sleepSeconds": 5}}
    assert f"{key}: 5 leaves nothing after the preStop sleep of 5" in refused(values, base="")
    manifests({**values, "terminationGracePeriodSeconds": 6}, base="")


def test_a_sleep_before_the_stop_needs_kubernetes_1_30() -> None:
    more: Object = {"preStop": {"sleepSeconds": 5}}
    message = "cannot render preStop.sleepSeconds: Kubernetes 1.30 or newer is needed, and this is v1.29.0"
    assert message in refused(more, "1.29.0")
    manifests(more, "1.30.0")
    manifests({"preStop": {"sleepSeconds": 0}}, "1.29.0")


def test_an_old_kubernetes_is_refused() -> None:
    assert "1.29.0-0" in refused({}, "1.28.0")


def test_all_mistakes_are_said_at_once() -> None:
    done = helm("template", "x", str(CHART))
    assert done.returncode == 1
    assert done.stderr.count("cannot render ") == 3
    for words in (
        "image.repository: it is empty",
        "image.tag: there is neither",
        "config.pools: it is empty: say what",
    ):
        assert words in done.stderr


def test_a_command_may_come_from_the_arguments() -> None:
    values: Object = {"image": {"repository": "x", "tag": "1"}, "config": {"pools": {"web": {"workers": 2}}}}
    assert "cannot render config.pools.web.command: it is missing" in refused(values, base="")
    manifests({**values, "args": ["sleep", "1"]}, base="")


def test_a_port_that_only_the_container_knows_is_fine_where_nobody_needs_it() -> None:
    manifests({**PORT, "service": {"enabled": False}})
    manifests({**PORT, "service": {"ports": [{"name": "http", "port": 80, "targetPort": 8000}]}})


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"replicas": 3}, "replicas"),
        ({"image": {"repo": "x"}}, "repo"),
        ({"image": {"tag": 1.1}}, "/image/tag"),
        ({"kind": "StatefulSet"}, "/kind"),
        ({"reload": "warm"}, "/reload"),
        ({"autoscaling": {"mode": "vpa"}}, "/autoscaling/mode"),
        ({"replicaCount": "3"}, "/replicaCount"),
        ({"terminationGracePeriodSeconds": "60s"}, "/terminationGracePeriodSeconds"),
        ({"podMonitor": {"interval": "soon"}}, "/podMonitor/interval"),
        ({"resources": {"cpu": 1}}, "cpu"),
        ({"extraEnv": [{"name": "A", "value": 1}]}, "/extraEnv/0/value"),
        ({"livenessProbe": {"period": 3}}, "period"),
        ({"config": {"pool": {}}}, "pool"),
        ({"config": {"pools": {"web": {"comand": ["x"]}}}}, "comand"),
        ({"config": {"pools": {"web": {"command": ["sleep", 1.5]}}}}, "/config/pools/web/command/1"),
        ({"config": {"pools": {"web": {"env": {"A": 1.1}}}}}, "/config/pools/web/env/A"),
        ({"config": {"pools": {"web": {"umask": 18}}}}, "/config/pools/web/umask"),
        ({"config": {"pools": {"web": {"stop": {"timeout": "20x"}}}}}, "/config/pools/web/stop/timeout"),
        ({"config": {"pools": {"web": {"stop": {"timeout": ""}}}}}, "/config/pools/web/stop/timeout"),
        ({"config": {"pools": {"Web": {"command": ["x"]}}}}, "Web"),
    ],
)
def test_what_the_schema_does_not_know(values: Object, place: str) -> None:
    said = refused(values)
    assert "values don't meet the specifications of the schema" in said
    assert place in said


def test_a_parent_chart_can_have_it() -> None:
    manifests({"global": {"registry": "example"}, "enabled": True})
