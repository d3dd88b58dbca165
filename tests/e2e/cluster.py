"""kubectl and helm against a real cluster, and readers of what they say."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.helm.harness import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Object = dict[str, Any]


NEVER = "1970-01-01T00:00:00Z"


class Cluster:
    """One namespace of a cluster."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self.namespace = namespace
        self._environment = {**os.environ, "KUBECONFIG": kubeconfig}

    def kubectl(self, *words: str, manifest: Object | None = None, timeout: float = 300) -> str:
        return self._run([program("kubectl"), "--namespace", self.namespace, *words], manifest, timeout)

    def helm(self, *words: str, values: Object | None = None, timeout: float = 400) -> str:
        """`values` is what `--values -` reads."""
        return self._run([program("helm"), "--namespace", self.namespace, *words], values, timeout)

    def get(self, *words: str) -> Object:
        found: Object = json.loads(self.kubectl("get", "--output", "json", *words))
        return found

    def items(self, kind: str, selector: str) -> list[Object]:
        found: list[Object] = self.get(kind, "--selector", selector)["items"]
        return found

    def http(self, pod: str, port: int, path: str = "/") -> str | None:
        """What a pod answers, by way of the API server; None if nothing, or not with 200."""
        url = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{port}/proxy{path}"
        try:
            return self.kubectl("get", "--raw", url, timeout=10)
        except (RuntimeError, subprocess.TimeoutExpired):
            return None

    def watch(self, *words: str) -> subprocess.Popen[str]:
        """`kubectl get --watch`: JSON on its output as things change."""
        command = [program("kubectl"), "--namespace", self.namespace, "get", "--watch", "--output", "json", *words]
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True)

    def _run(self, command: Sequence[str], manifest: Object | None, timeout: float) -> str:
        done = subprocess.run(
            command,
            env=self._environment,
            input="" if manifest is None else json.dumps(manifest),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if done.returncode:
            raise RuntimeError(f"cannot {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


class Ending(NamedTuple):
    """How a pod ended."""

    pod: str
    codes: list[int]  # exit codes of its containers; of none that is not known to have ended
    restarts: int
    messages: list[str]  # what its containers left as their last word
    late: float  # seconds from the end of the grace period to the end of its last container; negative: in time

    @property
    def in_good_order(self) -> bool:
        """By itself, with 0, in time."""
        return bool(self.codes) and not any(self.codes) and self.restarts == 0 and self.late < 0

    @classmethod
    def of(cls, pod: Object, due: str) -> Ending:
        """Of a pod as it was last seen, and the end of its grace period.

        That is the deletionTimestamp as it was first seen: the last word of the kubelet, which deletes the pod with a
        grace period of 0, replaces it.
        """
        statuses = pod.get("status", {}).get("containerStatuses", [])
        ends = [status["state"]["terminated"] for status in statuses if "terminated" in status["state"]]
        finished = max((_seconds(end["finishedAt"]) for end in ends), default=float("inf"))
        return cls(
            pod["metadata"]["name"],
            [end["exitCode"] for end in ends],
            sum(status["restartCount"] for status in statuses),
            [end.get("message", "") for end in ends],
            finished - _seconds(due),
        )


class Endings:
    """Follows pods, and keeps how each of them ended."""

    def __init__(self, cluster: Cluster, selector: str) -> None:
        self._process = cluster.watch("pods", "--selector", selector, "--output-watch-events")
        self._seen: dict[str, str] = {}  # by uid: the last event
        self._due: dict[str, str] = {}  # by uid: when the grace period ends, if it ever got one
        self._ended: list[Ending] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for event in documents(self._process.stdout):
            metadata = event["object"]["metadata"]
            if "deletionTimestamp" in metadata:
                self._due.setdefault(metadata["uid"], metadata["deletionTimestamp"])
            if event["type"] == "DELETED":
                self._ended.append(Ending.of(event["object"], self._due.get(metadata["uid"], NEVER)))
            self._seen[metadata["uid"]] = event["type"]

    def all(self, timeout: float = 120) -> list[Ending]:
        """Wait until every pod that was there is gone."""
        wait_for(lambda: self._seen and set(self._seen.values()) == {"DELETED"}, "all pods are gone", timeout)
        return [*self._ended]

    def close(self) -> None:
        self._process.terminate()
        self._thread.join()
        with self._process:  # its output is closed
            pass


def documents(pieces: Iterable[str]) -> Iterator[Object]:
    """JSON objects, one after the other, as soon as each is complete."""
    decoder = json.JSONDecoder()
    text = ""
    for piece in pieces:
        text = (text + piece).lstrip()
        while text:
            try:
                document, end = decoder.raw_decode(text)
            except json.JSONDecodeError:  # not complete yet
                break
            yield document
            text = text[end:].lstrip()


def split_image(image: str) -> tuple[str, str]:
    """Repository and tag; a colon before the last slash is that of a port."""
    folder, slash, name = image.rpartition("/")
    name, _, tag = name.partition(":")
    return folder + slash + name, tag or "latest"


def wait_for(condition: Callable[[], object], what: str, timeout: float = 180) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout:g} s it is still not so that {what}")
        time.sleep(0.2)


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
