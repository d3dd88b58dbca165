"""The life of a release of the chart in a real cluster, under load: no request is lost, no pod is killed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.e2e.cluster import Endings, wait_for
from tests.e2e.release import PODS, RELEASE, Load

if TYPE_CHECKING:
    import pytest

    from tests.e2e.cluster import Cluster
    from tests.e2e.release import Release

OBSERVER = 9180
DRAINING = "entrypoint_master_draining 1.0"


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


def test_no_request_is_lost_in_the_life_of_a_release(
    cluster: Cluster, release: Release, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
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
        wait_for(lambda: release.greets("second"), "the new configuration is in force", 240)
        assert release.pods() == before

        release.values["podAnnotations"] = {"example.com/release": "2"}
        release.apply()
        release.rolled_out()
        assert not set(release.pods()) & set(before)

        cluster.helm("rollback", "--wait", "--timeout", "5m", RELEASE, "1")
        release.rolled_out()
        wait_for(lambda: release.greets("first"), "the old configuration is in force", 240)

        cluster.helm("test", RELEASE)
        counted = load.end()
        cluster.helm("uninstall", RELEASE)
        ended = endings.all()
    finally:
        endings.close()

    requests, failed = counted["oneshot"] + counted["kept"], sum(counted["failed"].values())
    margin = -max(ending.late for ending in ended)
    with capsys.disabled():
        told = f"{requests} requests, {failed} failed; {len(ended)} pods ended, the latest {margin:g} s before its time"
        print(f" ({told}) ", end="", flush=True)  # noqa: T201 - for who runs it on a cluster of theirs
    assert not counted["failed"], counted
    assert min(counted["oneshot"], counted["kept"]) > 1000
    assert {answer.split()[0] for answer in counted["answers"]} == {"first", "second"}
    assert len(ended) >= 5 * 2 + 1 + 1 + 2 + 2 + 2
    assert not [ending for ending in ended if not ending.in_good_order]
    answered = [scrape for scrape in scrapes if scrape]
    assert scrapes[: len(answered)] == answered  # no gap: once there is no answer, the pod is about to be gone
    assert sum(DRAINING in scrape for scrape in answered) >= 3
    assert DRAINING in answered[-1]


def test_metrics_probes_and_the_status_can_be_had_in_the_cluster(cluster: Cluster, release: Release) -> None:
    for pod in release.pods():
        assert cluster.http(pod, OBSERVER, "/readyz") == "ok\n"
        metrics = cluster.http(pod, OBSERVER, "/metrics")
        assert metrics is not None
        assert 'entrypoint_pool_workers{pool="web",state="ready"} 2.0' in metrics
        told = json.loads(cluster.kubectl("exec", pod, "--", "entrypoint", "status", "--json"))
        assert [worker["state"] for worker in told["pools"]["web"]["workers"]] == ["ready", "ready"]
