"""What else the chart's pods do in a real cluster: those that do not stop, that complete, that follow a ConfigMap."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e.cluster import Endings, wait_for
from tests.e2e.release import PODS, RELEASE, SELECTOR, Load
from tests.helm.harness import CHART

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.cluster import Cluster
    from tests.e2e.release import Release


def finished_job(cluster: Cluster, *, until: str) -> dict[str, Any]:
    """Of the release, once it has that condition."""
    cluster.kubectl("wait", "job", "--selector", SELECTOR, "--for", f"condition={until}", "--timeout", "120s")
    (found,) = cluster.items("jobs", SELECTOR)
    return found


def last_words(cluster: Cluster, job: dict[str, Any]) -> str:
    """The termination message of its only pod."""
    (pod,) = cluster.items("pods", f"job-name={job['metadata']['name']}")
    (container,) = pod["status"]["containerStatuses"]
    message: str = container["state"]["terminated"]["message"]
    return message


def own_configmap(cluster: Cluster, text: str) -> None:
    metadata = {"name": "mine"}
    data = {"config.yaml": text}
    configmap = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    cluster.kubectl("apply", "--filename", "-", manifest=configmap)


def test_workers_that_do_not_stop_are_killed_within_the_computed_grace_period(cluster: Cluster, draft: Release) -> None:
    command = ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
    pool = {"command": command, "ready": {"after": "0.2s"}, "stop": {"timeout": "4s"}}
    draft.values["config"] = {"pools": {"stubborn": pool}}
    draft.apply()
    endings = Endings(cluster, PODS)
    try:
        cluster.helm("uninstall", RELEASE)
        ended = endings.all()
    finally:
        endings.close()
    assert len(ended) == draft.values["replicaCount"]
    for ending in ended:
        assert ending.codes == [137]
        assert json.loads(ending.messages[0])["exit_code"] == 137  # the kubelet has killed nothing
        assert ending.late < 0


def test_a_configmap_of_ones_own_is_followed_and_no_request_is_lost(
    cluster: Cluster, draft: Release, image: str
) -> None:
    config = draft.values.pop("config")
    own_configmap(cluster, json.dumps(config))
    draft.values |= {
        "existingConfigMap": "mine",
        "terminationGracePeriodSeconds": 30,
        "service": {"ports": [{"name": "http", "port": 80, "targetPort": 8000}]},
    }
    draft.apply()
    load = Load(cluster, image, *draft.service())
    before = draft.pods()
    draft.pool["env"]["GREETING"] = "second"
    own_configmap(cluster, json.dumps(config))
    wait_for(lambda: draft.greets("second"), "the new configuration is in force", 240)
    assert draft.pods() == before
    counted = load.end()
    assert not counted["failed"], counted
    assert {answer.split()[0] for answer in counted["answers"]} == {"first", "second"}


def test_a_job_with_an_injected_entrypoint_completes(cluster: Cluster, draft: Release) -> None:
    draft.values["kind"] = "Job"
    draft.values["inject"] = {"enabled": True, "image": draft.values["image"]}
    pool = {"command": ["sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"], "restart": {"policy": "never"}}
    draft.values["config"] = {"pools": {"work": pool}}
    draft.apply()
    done = finished_job(cluster, until="Complete")
    assert "/opt/entrypoint/" in cluster.kubectl("logs", f"job/{done['metadata']['name']}")
    assert json.loads(last_words(cluster, done))["exit_code"] == 0


def test_a_job_whose_configuration_is_invalid_fails_at_once(cluster: Cluster, draft: Release) -> None:
    own_configmap(cluster, "pools: {work: {comand: []}}")
    draft.values.pop("config")
    draft.values |= {"kind": "Job", "existingConfigMap": "mine", "terminationGracePeriodSeconds": 30}
    draft.apply()
    failed = finished_job(cluster, until="Failed")
    assert failed["status"]["failed"] == 1  # and not once more, though that is what backoffLimit would allow
    assert "PodFailurePolicy" in {condition.get("reason") for condition in failed["status"]["conditions"]}
    assert "did you mean command?" in last_words(cluster, failed)


@pytest.mark.parametrize("values", sorted((CHART / "ci").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_api_server_accepts_what_is_rendered_and_warns_of_nothing(cluster: Cluster, values: Path) -> None:
    known = cluster.kubectl("api-versions").split()  # those of operators are rarely all there
    rendered = yaml.safe_load_all(cluster.helm("template", "accepted", str(CHART), "--values", str(values)))
    objects = [each for each in rendered if each and each["apiVersion"] in known]
    assert objects
    for each in objects:
        each["metadata"]["namespace"] = cluster.namespace  # the values may name another, which is not there
    strictly = ("--dry-run=server", "--server-side", "--validate=strict", "--warnings-as-errors")
    every: dict[str, Any] = {"apiVersion": "v1", "kind": "List", "items": objects}
    cluster.kubectl("apply", *strictly, "--filename", "-", manifest=every)
