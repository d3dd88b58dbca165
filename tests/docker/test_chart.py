"""The pods that the chart renders, run on an engine as a kubelet would; see pod.py."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from threading import Timer
from typing import TYPE_CHECKING, Any

import docker
import pytest

from tests.docker.conftest import BASE_IMAGE
from tests.docker.pod import Node, Pod
from tests.docker.test_kubernetes import Load
from tests.docker.test_metrics import poll
from tests.helm.harness import manifests, one, workload

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docker.conftest import Build

Object = dict[str, Any]
Start = Callable[..., Pod]

PORT = 8000
WEB = {"repository": "example/web", "tag": "1"}
PLAIN = {"repository": "example/plain", "tag": "1"}
DRAIN = 5  # seconds, what `auto` is inside Kubernetes
LATE = 3.0  # seconds after the order to go, until clients have looked away


@pytest.fixture(scope="session", autouse=True)
def _engine_and_image_are_there() -> None:
    """Here it is a failure when they are not, wherever this runs."""
    with closing(docker.from_env()) as engine:
        engine.images.get(BASE_IMAGE)


@pytest.fixture(scope="session")
def images(build: Build, base: str, image: str, root: Path) -> dict[str, str]:
    return {
        "example/entrypoint:0.1.0": image,
        "example/web:1": build(root / "tests/e2e", "entrypoint-test-e2e", IMAGE=image),
        "example/plain:1": build(root / "tests/e2e", "entrypoint-test-server", IMAGE=base),  # without the entrypoint
    }


@pytest.fixture
def start(engine: docker.DockerClient, base: str, images: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """`start(template, objects)`: a pod of the release that these objects are."""
    pods: list[Pod] = []

    def begin(template: Object, objects: list[Object], hosts: dict[str, str] | None = None) -> Pod:
        data = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"}
        pods.append(Pod(Node(engine, base, images, tmp_path), template, data, hosts or {}))
        pods[-1].start()
        return pods[-1]

    yield begin
    for pod in pods:
        pod.close()


def server(**more: Any) -> Object:
    """The configuration for the server of the end-to-end tests."""
    pool = {
        "command": ["python3", "/app/server.py"],
        "sockets": ["http"],
        "ready": {"when": "accepting"},
        "restart": {"min_uptime": "0s"},
        "stop": {"timeout": "5s"},
        **more,
    }
    return {"pools": {"web": pool}, "sockets": {"http": {"bind": f":{PORT}"}}}


def template(objects: list[Object]) -> Object:
    found: Object = workload(objects)["spec"]["template"]
    return found


def wait_until_ready(pod: Pod) -> None:
    """As long as the chart lets it take."""
    startup, readiness, _ = pod.probes.values()
    budget = startup.period * startup.failures + readiness.period
    poll(lambda: pod.ready.is_set() or bool(pod.failed), budget + 10)
    assert not pod.failed, pod.box.output


def status(pod: Pod, program: str = "entrypoint") -> Object:
    code, output = pod.box.container.exec_run([program, "status", "--json"])
    assert code == 0, output
    assert isinstance(output, bytes)
    found: Object = json.loads(output)
    return found


def test_a_pod_serves_follows_its_configmap_and_ends_without_losing_a_request(start: Start, root: Path) -> None:
    values = {
        "image": WEB,
        "reload": "hot",
        # Half a CPU: 2 workers. With the request rounded to whole CPUs, or unknown, it would be 4.
        "config": server(workers={"auto": True, "per_cpu": 4}, env={"GREETING": "first"}),
        "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": {"periodSeconds": 1},
        "livenessProbe": {"periodSeconds": 1},
    }
    first = manifests(values, base="")
    pod = start(template(first), first)
    wait_until_ready(pod)
    assert pod.get("/readyz") == (200, "ok\n")
    assert 'entrypoint_pool_workers{pool="web",state="ready"} 2.0' in pod.get("/metrics")[1]
    assert len(status(pod)["pools"]["web"]["workers"]) == 2
    assert pod.get("/", PORT) == (200, f"first {pod.name}\n")

    values["config"] = server(workers={"auto": True, "per_cpu": 4}, env={"GREETING": "second"})
    second = manifests(values, base="")
    assert template(second) == template(first)
    name = one(second, "ConfigMap")["metadata"]["name"]
    pod.configmaps[name].swap(one(second, "ConfigMap")["data"]["config.yaml"])
    # Completed it may be while the last of the old workers is still about to go, and serves who comes to it.
    pod.box.wait_for('"rollout_completed"')
    pod.box.wait_for(r'("worker_exited"[^\n]*"reason": "rollout".*){2}')
    assert pod.get("/", PORT) == (200, f"second {pod.name}\n")

    client = Load(root, pod.address, PORT)
    look_away = Timer(LATE, client.process.terminate)
    try:
        look_away.start()
        code, seconds = pod.stop()
        look_away.join()
        counted = client.end()
    finally:
        with suppress(ProcessLookupError):
            client.process.kill()
        client.process.communicate()
    assert not counted["failed"], counted
    assert min(counted["oneshot"], counted["kept"]) > 100
    assert [*counted["answers"]] == [f"second {pod.name}"]
    assert code == 0, pod.box.output
    assert DRAIN <= seconds < template(first)["spec"]["terminationGracePeriodSeconds"]
    assert 503 in pod.probes["readiness"].asked  # while it went on serving
    assert not pod.failed
    assert json.loads(pod.message())["exit_code"] == 0


def test_a_plain_image_gets_the_entrypoint_and_runs_as_anybody_and_the_test_of_the_release_passes(start: Start) -> None:
    values = {
        "image": PLAIN,
        "inject": {"enabled": True, "image": {"repository": "example/entrypoint"}},
        "podSecurityContext": {"runAsUser": 12345},
        "preStop": {"sleepSeconds": 1},
        "tmp": {"medium": "Memory", "sizeLimit": "16Mi"},
        "config": {**server(workers=2), "shutdown": {"drain_delay": "0s"}},
    }
    objects = manifests(values, base="")
    pod = start(template(objects), objects)
    wait_until_ready(pod)
    assert pod.get("/", PORT) == (200, f"hello {pod.name}\n")
    found = status(pod, "/opt/entrypoint/bin/entrypoint")
    assert [worker["state"] for worker in found["pools"]["web"]["workers"]] == ["ready", "ready"]
    assert pod.box.container.exec_run(["id", "-u"]).output == b"12345\n"
    for path, code in {"/etc/entrypoint/x": 1, "/opt/entrypoint/x": 1, "/x": 1, "/tmp/x": 0}.items():
        assert pod.box.container.exec_run(["touch", path]).exit_code == code, path

    test = one(objects, "Pod")
    service = one(objects, "Service", test["spec"]["containers"][0]["command"][-3])
    assert service["spec"]["selector"].items() <= template(objects)["metadata"]["labels"].items()
    asking = start(test, objects, {service["metadata"]["name"]: pod.address})
    assert asking.wait() == 0, asking.box.output
    assert "/metrics of web-entrypoint-observer:9180 is as it should be" in asking.box.output

    code, seconds = pod.stop()
    assert code == 0, pod.box.output
    assert 1 <= seconds < template(objects)["spec"]["terminationGracePeriodSeconds"]
    assert not pod.failed


def test_the_grace_period_is_enough_for_workers_that_do_not_stop(start: Start) -> None:
    """Every term of its sum is used up: preStop, the drain delay, one pool after the other, and the sweep."""
    stubborn = "trap '' TERM; while :; do sleep 1; done"
    leaving = f'(setsid sh -c "{stubborn}" &) ; {stubborn}'  # and an orphan, which nobody waits for but the sweep
    pools = {
        "cache": {"command": ["sh", "-c", stubborn], "stop": {"timeout": "3s"}},
        "jobs": {"command": ["sh", "-c", leaving], "stop": {"timeout": "2s"}, "after": ["cache"]},
    }
    for pool in pools.values():
        pool["ready"] = {"after": "0.2s"}
    config = {"pools": pools, "shutdown": {"drain_delay": "1s"}}
    objects = manifests({"image": WEB, "preStop": {"sleepSeconds": 1}, "config": config}, base="")
    pod = start(template(objects), objects)
    wait_until_ready(pod)
    code, seconds = pod.stop()
    message = json.loads(pod.message())  # not to be had from a master that was killed
    assert (code, message["exit_code"]) == (137, 137), pod.box.output
    assert 1 + 1 + 2 + 3 + 1 <= seconds < template(objects)["spec"]["terminationGracePeriodSeconds"], pod.box.output
    assert not pod.failed


@pytest.mark.parametrize("code", [0, 7])
def test_a_job_ends_with_the_code_of_its_worker_and_says_why(start: Start, code: int) -> None:
    command = ["sh", "-c", f"echo working; exit {code}"]
    pool = {"command": command, "restart": {"policy": "never"}}
    objects = manifests({"kind": "Job", "image": WEB, "config": {"pools": {"work": pool}}}, base="")
    pod = start(template(objects), objects)
    assert pod.wait() == code, pod.box.output
    message = json.loads(pod.message())
    assert message["exit_code"] == code
    assert (message.get("pool") == "work") == (code != 0)


def test_a_job_with_a_configuration_that_is_invalid_fails_at_once_and_says_why(start: Start) -> None:
    values = {"kind": "Job", "image": WEB, "existingConfigMap": "mine", "terminationGracePeriodSeconds": 30}
    objects = manifests(values, base="")
    mine = {"kind": "ConfigMap", "metadata": {"name": "mine"}, "data": {"config.yaml": "pools: {work: {comand: []}}"}}
    pod = start(template(objects), [*objects, mine])
    code = pod.wait()
    (rule,) = (each for each in workload(objects)["spec"]["podFailurePolicy"]["rules"] if each["action"] == "FailJob")
    assert code == 78
    assert code in rule["onExitCodes"]["values"]
    assert "unknown key (did you mean command?)" in pod.message()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("hostNetwork",), True),
        (("containers", 0, "securityContext", "runAsUser"), 0),
        (("containers", 0, "volumeMounts", 0, "subPath"), "config.yaml"),
        (("containers", 0, "readinessProbe", "exec"), {"command": ["true"]}),
    ],
)
def test_what_would_not_be_done_is_refused(start: Start, path: tuple[str | int, ...], value: object) -> None:
    objects = manifests({"image": WEB, "config": server()}, base="")
    changed = copy.deepcopy(template(objects))
    place: Any = changed["spec"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match="cannot run the pod: "):
        start(changed, objects)
