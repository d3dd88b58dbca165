"""A kubelet for one pod, on a Docker engine: what the pod's spec says is done, or refused; nothing is passed over.

As on a node, a sandbox has the pod's address and its volumes, and the containers join it. Unlike there, images are
those that the test hands over, nothing is restarted, and only the size of volumes in memory is limited.
"""

from __future__ import annotations

import http.client
import math
import re
import secrets
import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from docker.errors import DockerException
from docker.types import Mount

from tests.docker.conftest import Box
from tests.docker.test_kubernetes import ConfigMap

if TYPE_CHECKING:
    from pathlib import Path

    import docker
    from docker.models.images import Image
    from docker.models.volumes import Volume

Object = dict[str, Any]

PLACING = ("restartPolicy", "serviceAccountName", "topologySpreadConstraints")  # nothing that a container could notice
SERVER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
UNITS: dict[str, Decimal | int] = {"m": Decimal("0.001"), "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
PROBES = ("startup", "readiness", "liveness")
NEVER = threading.TIMEOUT_MAX


class Node(NamedTuple):
    """What a pod needs of its machine."""

    engine: docker.DockerClient
    sandbox: str  # an image with `sleep`
    images: dict[str, str]  # what is pulled, by the names that manifests have
    folder: Path


def only(given: Object, *known: str) -> Object:
    """The same without what is null, if there is nothing else in it."""
    if unknown := set(given) - set(known):
        raise ValueError(f"cannot run the pod: unknown: {', '.join(sorted(unknown))}")
    return {key: value for key, value in given.items() if value is not None}


def want(what: str, value: object, *allowed: object) -> None:
    if value not in allowed:
        raise ValueError(f"cannot run the pod: {what} is {value!r}")


def quantity(text: object) -> Decimal:
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text))
    assert match is not None, text
    return Decimal(match[1]) * UNITS[match[2]]


def expanded(text: str, variables: dict[str, str]) -> str:
    """$(NAME) is a variable, if there is one; $$ is a dollar sign."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", value, text)


def resources(container: Object) -> tuple[Object, Object]:
    """Requests and limits. What is limited is requested, if nothing else is."""
    given = only(container.get("resources", {}), "requests", "limits")
    limits = only(given.get("limits", {}), "cpu", "memory")
    return {**limits, **only(given.get("requests", {}), "cpu", "memory")}, limits


def environment(container: Object) -> dict[str, str]:
    found = dict(SERVER)
    for variable in container.get("env", []):
        only(variable, "name", "value", "valueFrom")
        if "valueFrom" in variable:
            reference = only(variable["valueFrom"], "resourceFieldRef")["resourceFieldRef"]
            only(reference, "containerName", "resource", "divisor")
            want("containerName", reference.get("containerName"), None, container["name"])
            want("resource", reference["resource"], "requests.cpu")
            share = quantity(resources(container)[0]["cpu"]) / quantity(reference.get("divisor", 1))
            found[variable["name"]] = str(math.ceil(share))
        else:
            found[variable["name"]] = expanded(variable.get("value", ""), found)
    return found


def limited(container: Object) -> Object:
    """As options of Docker."""
    requests, limits = resources(container)
    found: Object = {"cpu_shares": max(2, int(quantity(requests.get("cpu", 0)) * 1024))}
    if "cpu" in limits:
        found["nano_cpus"] = int(quantity(limits["cpu"]) * 10**9)
    if "memory" in limits:
        found["mem_limit"] = found["memswap_limit"] = int(quantity(limits["memory"]))
    return found


def secured(pod: Object, container: Object, image: Image) -> Object:
    """As options of Docker."""
    shared = ("runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile")
    own = only(container, *shared, "allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities")
    context = {**only(pod, *shared), **own}
    # Kubernetes leaves the group of an image's user away.
    user = str(context.get("runAsUser", image.attrs["Config"]["User"].partition(":")[0]))
    if context.get("runAsNonRoot") and not (user.isdecimal() and int(user)):
        raise ValueError(f"cannot run the pod: runAsNonRoot, and the user is {user!r}")
    seccomp = only(context.get("seccompProfile", {"type": "Unconfined"}), "type")["type"]
    want("seccompProfile", seccomp, "RuntimeDefault", "Unconfined")
    options = [] if context.get("allowPrivilegeEscalation", True) else ["no-new-privileges"]
    options += ["seccomp=unconfined"] if seccomp == "Unconfined" else []
    capabilities = only(context.get("capabilities", {}), "add", "drop")
    return {
        "user": f"{user}:{context['runAsGroup']}" if "runAsGroup" in context else user,
        "read_only": context.get("readOnlyRootFilesystem", False),
        "security_opt": options,
        "cap_add": capabilities.get("add", []),
        "cap_drop": capabilities.get("drop", []),
    }


def get(address: str, port: int, path: str, timeout: float) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class Probe:
    """One of the three, over HTTP."""

    def __init__(self, container: Object, kind: str, address: str) -> None:
        times = ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold")
        spec = only(container.get(f"{kind}Probe", {}), "httpGet", *times)
        self.address = address
        self.asked: list[int] = []  # statuses, 0 where there was no answer
        self.due = NEVER
        if spec:
            action = only(spec["httpGet"], "path", "port")
            names = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
            self.port = int({action["port"]: action["port"], **names}[action["port"]])
            self.path = action["path"]
            self.due = float(spec.get("initialDelaySeconds", 0))
        self.period, self.timeout = spec.get("periodSeconds", 10), spec.get("timeoutSeconds", 1)
        self.successes, self.failures = spec.get("successThreshold", 1), spec.get("failureThreshold", 3)

    def ask(self, now: float) -> bool | None:
        """Whether it has succeeded, or failed, often enough; None: neither."""
        self.due = now + self.period
        try:
            self.asked.append(get(self.address, self.port, self.path, self.timeout)[0])
        except (OSError, http.client.HTTPException):
            self.asked.append(0)
        good = [200 <= status < 400 for status in self.asked]
        if all(good[-self.successes :]) and len(good) >= self.successes:
            return True
        return False if len(good) >= self.failures and not any(good[-self.failures :]) else None


class Pod:
    """A pod from its template, or a Pod itself; the data of ConfigMaps, and addresses of others, by their names."""

    def __init__(self, node: Node, template: Object, configmaps: dict[str, Object], hosts: dict[str, str]) -> None:
        more = ("containers", "initContainers", "volumes", "securityContext", "terminationGracePeriodSeconds")
        fixed = ("automountServiceAccountToken", "enableServiceLinks", "activeDeadlineSeconds")
        self._node, self._spec = node, only(template["spec"], *more, *fixed, *PLACING)
        want("automountServiceAccountToken", self._spec.get("automountServiceAccountToken"), False)
        want("enableServiceLinks", self._spec.get("enableServiceLinks"), False)
        (self._main,) = self._spec["containers"]
        for port in self._main.get("ports", []):
            only(port, "name", "containerPort", "protocol")
        hook = only(self._main.get("lifecycle", {}), "preStop").get("preStop", {"sleep": {"seconds": 0}})
        self._pre_stop: int = only(only(hook, "sleep")["sleep"], "seconds")["seconds"]
        self.name = f"pod-{secrets.token_hex(4)}"
        self.folder = node.folder / self.name
        self.folder.mkdir()
        self.configmaps: dict[str, ConfigMap] = {}
        self._data, self._hosts = configmaps, hosts
        self._created: list[Volume] = []
        self._boxes: list[Box] = []
        self._over, self._terminating = threading.Event(), threading.Event()
        self._prober = threading.Thread(target=self._ask)
        self.ready = threading.Event()
        self.failed = ""  # the probe for which the container would be killed

    def start(self) -> None:
        """Returns when the container has been started. Raises ValueError for a spec that is not understood."""
        self._volumes = {volume["name"]: self._volume(volume) for volume in self._spec.get("volumes", [])}
        held = {f"/volumes/{name}": volume for name, (kind, volume) in self._volumes.items() if kind == "volume"}
        self._sandbox = self._node.engine.containers.run(
            self._node.sandbox, ["sleep", "infinity"], detach=True, hostname=self.name, extra_hosts=self._hosts,
            mounts=[Mount(path, volume, no_copy=True) for path, volume in held.items()],
        )  # fmt: skip
        if held:
            done = self._sandbox.exec_run(["chmod", "0777", *held])  # whoever the containers run as
            assert done.exit_code == 0, done.output
        self._sandbox.reload()
        self.address: str = self._sandbox.attrs["NetworkSettings"]["IPAddress"]
        for container in self._spec.get("initContainers", []):
            box = self._run(container)
            if code := box.wait(60):
                raise ChildProcessError(f"{container['name']} ended with {code}: {box.output}")
        self.probes = {kind: Probe(self._main, kind, self.address) for kind in PROBES}
        more = (f"{kind}Probe" for kind in PROBES)
        self.box = self._run(self._main, *more, "ports", "lifecycle", "terminationMessagePolicy")
        self._prober.start()

    def _volume(self, volume: Object) -> tuple[Literal["bind", "volume"], str]:
        """Its kind and name, as Docker has them."""
        only(volume, "name", "emptyDir", "configMap")
        name = volume["name"]
        if "configMap" in volume:
            source = only(volume["configMap"], "name")["name"]
            data = only(self._data[source], "config.yaml")
            self.configmaps[source] = ConfigMap(self.folder / name, data["config.yaml"])
            return "bind", str(self.folder / name)
        empty = only(volume["emptyDir"], "medium", "sizeLimit")
        want("medium", empty.get("medium", ""), "", "Memory")
        options = {"type": "tmpfs", "device": "tmpfs"} if empty.get("medium") else {}
        if options and "sizeLimit" in empty:
            options["o"] = f"size={int(quantity(empty['sizeLimit']))}"
        self._created.append(self._node.engine.volumes.create(f"{self.name}-{name}", driver_opts=options))
        return "volume", f"{self.name}-{name}"

    def _run(self, container: Object, *more: str) -> Box:
        known = ("name", "image", "imagePullPolicy", "command", "args", "env", "resources", "securityContext")
        spec = only(container, *known, "volumeMounts", *more)
        want("imagePullPolicy", spec["imagePullPolicy"], "IfNotPresent", "Never")
        image = self._node.engine.images.get(self._node.images[spec["image"]])
        variables = environment(spec)
        command, args = ([expanded(word, variables) for word in spec.get(key, [])] for key in ("command", "args"))
        security = secured(self._spec.get("securityContext", {}), spec.get("securityContext", {}), image)
        self.message_file = self.folder / f"{spec['name']}-termination-log"
        self.message_file.touch()
        self.message_file.chmod(0o666)
        mounts = [Mount("/dev/termination-log", str(self.message_file), type="bind")]
        mounts += [self._mount(mount) for mount in spec.get("volumeMounts", [])]
        created = self._node.engine.containers.create(
            image, args, entrypoint=command or None, environment=variables, mounts=mounts,
            network_mode=f"container:{self._sandbox.id}", healthcheck={"test": ["NONE"]}, **limited(spec), **security,
        )  # fmt: skip
        try:
            self._boxes.append(Box(created, tty=False))
        except DockerException:  # its program is not there, say
            created.remove(force=True)
            raise
        return self._boxes[-1]

    def _mount(self, mount: Object) -> Mount:
        only(mount, "name", "mountPath", "readOnly")
        kind, source = self._volumes[mount["name"]]
        if kind == "bind":  # a ConfigMap, which nobody can write to
            return Mount(mount["mountPath"], source, type=kind, read_only=True)
        return Mount(mount["mountPath"], source, no_copy=True, read_only=mount.get("readOnly", False))

    def _ask(self) -> None:
        """The life of the probes, a thread's."""
        began = time.monotonic()
        startup, readiness, liveness = self.probes.values()
        while startup.due < NEVER and not self._over.wait(startup.due - (time.monotonic() - began)):
            result = startup.ask(time.monotonic() - began)
            if result is False:
                self.failed = "startup"
                return
            if result:
                break
        while not self._over.wait(min(readiness.due, liveness.due) - (time.monotonic() - began)):
            now = time.monotonic() - began
            if readiness.due <= now and (result := readiness.ask(now)) is not None:
                (self.ready.set if result else self.ready.clear)()
            if liveness.due <= now and not self._terminating.is_set() and liveness.ask(now) is False:
                self.failed = "liveness"
                return

    def get(self, path: str, port: int = 9180) -> tuple[int, str]:
        return get(self.address, port, path, timeout=10)

    def message(self) -> str:
        """Of the last container that was started, once it has ended."""
        want("terminationMessagePolicy", self._main.get("terminationMessagePolicy"), "FallbackToLogsOnError")
        self.box.container.reload()
        text = self.message_file.read_text()[:4096]
        return text or (self.box.output[-2048:] if self.box.container.attrs["State"]["ExitCode"] else "")

    def wait(self) -> int:
        """Until it ends by itself; the exit code."""
        return self.box.wait(self._spec.get("activeDeadlineSeconds", 60))

    def stop(self) -> tuple[int, float]:
        """As when it is deleted; the exit code and the seconds that it took."""
        began = time.monotonic()
        self._terminating.set()
        time.sleep(self._pre_stop)
        code, _ = self.box.stop(self._spec.get("terminationGracePeriodSeconds", 30) - self._pre_stop)
        return code, time.monotonic() - began

    def close(self) -> None:
        self._over.set()
        if self._prober.is_alive():
            self._prober.join()
        for box in self._boxes:
            box.close()
        if hasattr(self, "_sandbox"):
            self._sandbox.remove(force=True)
        for volume in self._created:
            volume.remove()
