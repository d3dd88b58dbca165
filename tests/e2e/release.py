"""The chart with a small web server, installed in a cluster, and a pod that counts what becomes of every request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.e2e.cluster import split_image, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.cluster import Cluster

RELEASE = "web"
SELECTOR = f"app.kubernetes.io/instance={RELEASE}"
PODS = f"{SELECTOR},pod-template-hash"  # those of the deployment, not that of `helm test`
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

    def greets(self, word: str) -> bool:
        """Whether all pods do. Asked several times, since each has several workers."""
        answers = [self._cluster.http(pod, 8000) or "" for pod in self.pods() for _ in range(4)]
        return all(answer.startswith(f"{word} ") for answer in answers)

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
        self._cluster.kubectl("delete", "pod", "load")
        return counted
