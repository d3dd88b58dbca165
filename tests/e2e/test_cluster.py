"""The life of a release of the chart in a real cluster, under load: no request is lost, no pod is killed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.cluster import Endings, split_image, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.cluster import Cluster

RELEASE = "web"
SELECTOR = f"app.kubernetes.io/instance={RELEASE}"
PODS = f"{SELECTOR},pod-template-hash"  # those of the deployment, not that of `helm test`
OBSERVER = 9180
DRAINING = "entrypoint_master_draining 1.0"
HARMLESS = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


class Release:
    """The chart with a small web server."""

    def __init__(self, cluster: Cluster, chart: Path, image: str) -> None:
        self._cluster, self._chart = cluster, chart
        repository, tag = split_image(image)
        self.pool: dict[str, Any] = {
            "command": ["python3", "/app/server.py"],
            "workers": 2,
            "sockets": ["http"],
            "ready": {"when": "accepting"},
            "env": {"GREETING": "first"},
            "stop": {"timeout": "10s"},
        }
        self.values: dict[str, Any] = {
            "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
            "replicaCount": 2,
            "reload": "hot",
            "config": {"sockets": {"http": {"bind": ":8000"}}, "pools": {"web": self.pool}},
        }

    def apply(self) -> None:
        """Install, or upgrade to the values as they are now."""
        words = ("upgrade", "--install", "--wait", "--timeout", "5m", "--values", "-", RELEASE, str(self._chart))
        self._cluster.helm(*words, values=self.values)

    def deployment(self) -> dict[str, Any]:
        (found,) = self._cluster.items("deployments", SELECTOR)
        return found

    def service(self) -> tuple[str, int]:
        """The name and port where it serves."""
        for service in self._cluster.items("services", SELECTOR):
            for port in service["spec"]["ports"]:
                if port.get("name") == "http":
                    return service["metadata"]["name"], port["port"]
        raise LookupError("no service has a port that is called http")

    def rolled_out(self) -> None:
        name = self.deployment()["metadata"]["name"]
        self._cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout", "180s")

    def pods(self) -> list[str]:
        """Those that are not about to go."""
        pods = self._cluster.items("pods", PODS)
        return sorted(pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"])


class Load:
    """A pod that makes requests and counts them; see client.py."""

    def __init__(self, cluster: Cluster, image: str, host: str, port: int) -> None:
        self._cluster = cluster
        container = {
            "name": "load",
            "image": image,
            "args": ["--", "python3", "/app/client.py", host, str(port)],
            "securityContext": HARMLESS,
        }
        spec = {"containers": [container], "restartPolicy": "Never", "automountServiceAccountToken": False}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load"}, "spec": spec}
        cluster.kubectl("apply", "--filename", "-", manifest=pod)
        cluster.kubectl("wait", "--for", "condition=Ready", "pod/load", "--timeout", "180s")
        wait_for(lambda: "loading" in cluster.kubectl("logs", "load"), "the first request is answered", 60)

    def end(self) -> dict[str, Any]:
        """What became of all requests."""
        self._cluster.kubectl("exec", "load", "--", "python3", "-c", "import os; os.kill(1, 15)")
        ended = "jsonpath={.status.phase}=Succeeded"
        self._cluster.kubectl("wait", "--for", ended, "pod/load", "--timeout", "60s")
        counted: dict[str, Any] = json.loads(self._cluster.kubectl("logs", "load").splitlines()[-1])
        return counted


@pytest.fixture
def release(cluster: Cluster, root: Path, image: str) -> Iterator[Release]:
    release = Release(cluster, root / "helm/entrypoint", image)
    release.apply()
    yield release
    cluster.helm("uninstall", "--ignore-not-found", RELEASE)


def scrapes_of_a_pod_that_goes(cluster: Cluster, pod: str) -> list[str]:
    """The metrics, again and again until the pod is gone; empty where there was no answer."""
    cluster.kubectl("delete", "pod", pod, "--wait=false")
    found = []
    while cluster.kubectl("get", "pod", pod, "--ignore-not-found", "--output", "name"):
        found.append(cluster.http(pod, OBSERVER, "/metrics") or "")
    return found


def scale(cluster: Cluster, release: Release, replicas: int) -> None:
    cluster.kubectl("scale", f"deployment/{release.deployment()['metadata']['name']}", f"--replicas={replicas}")
    wait_for(lambda: len(release.pods()) == replicas, f"there are {replicas} pods")
    release.rolled_out()


def greets(cluster: Cluster, release: Release, word: str) -> bool:
    """Whether all pods do. Asked several times, since each has several workers."""
    answers = [cluster.http(pod, 8000) or "" for pod in release.pods() for _ in range(4)]
    return all(answer.startswith(f"{word} ") for answer in answers)


def test_no_request_is_lost_in_the_life_of_a_release(cluster: Cluster, release: Release, image: str) -> None:
    deployment = release.deployment()
    name = deployment["metadata"]["name"]
    # Drain delay, the stop of the pool, and what the master and the kubelet need.
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 5 + 10 + 2
    endings = Endings(cluster, PODS)
    try:
        load = Load(cluster, image, *release.service())

        for _ in range(5):
            cluster.kubectl("rollout", "restart", f"deployment/{name}")
            release.rolled_out()

        scrapes = scrapes_of_a_pod_that_goes(cluster, release.pods()[0])
        release.rolled_out()

        scale(cluster, release, 3)
        scale(cluster, release, 2)  # what the chart says, so that the next upgrade has no conflict

        before = release.pods()
        release.pool["env"]["GREETING"] = "second"  # reload: hot
        release.apply()
        wait_for(lambda: greets(cluster, release, "second"), "the new configuration is in force", 240)
        assert release.pods() == before

        release.values["podAnnotations"] = {"example.com/release": "2"}
        release.apply()
        release.rolled_out()
        assert not set(release.pods()) & set(before)

        cluster.helm("rollback", "--wait", "--timeout", "5m", RELEASE, "1")
        release.rolled_out()
        wait_for(lambda: greets(cluster, release, "first"), "the old configuration is in force", 240)

        cluster.helm("test", RELEASE)
        counted = load.end()
        cluster.helm("uninstall", RELEASE)
        ended = endings.all()
    finally:
        endings.close()

    assert not counted["failed"], counted
    assert min(counted["oneshot"], counted["kept"]) > 1000
    assert {answer.split()[0] for answer in counted["answers"]} == {"first", "second"}
    assert len(ended) >= 5 * 2 + 1 + 1 + 2 + 2 + 2
    assert not [ending for ending in ended if not ending.in_good_order]
    answered = [scrape for scrape in scrapes if scrape]
    assert scrapes[: len(answered)] == answered  # no gap: once there is no answer, the pod is about to be gone
    assert sum(DRAINING in scrape for scrape in answered) >= 3
    assert DRAINING in answered[-1]


def test_metrics_and_probes_are_reachable_in_the_cluster(cluster: Cluster, release: Release) -> None:
    for pod in release.pods():
        assert cluster.http(pod, OBSERVER, "/readyz") == "ok\n"
        metrics = cluster.http(pod, OBSERVER, "/metrics")
        assert metrics is not None
        assert 'entrypoint_pool_workers{pool="web",state="ready"} 2.0' in metrics
