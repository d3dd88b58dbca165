"""The time to stop and to start, computed by templates: the same as the entrypoint itself says."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from entrypoint.config.grace import budget
from entrypoint.config.load import ConfigError, Request, load
from tests.helm.harness import CHART, CI, Object, config, container, helm, manifests, pod, refused

if TYPE_CHECKING:
    from pathlib import Path

IN_KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "ENTRYPOINT_CPUS": "1"}
POOLS = "abcdef"

# A chart of nothing but the templates in question, so that one run of helm computes many.
PROBE = """
{{- range $index, $config := .Values.configs }}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ $index }}"}
data:
  stop: {{ include "entrypoint.stopBudget" $config }}
  start: {{ include "entrypoint.startBudget" $config }}
{{- end }}
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chart = tmp_path_factory.mktemp("probe")
    templates = chart / "templates"
    templates.mkdir()
    for name in ("_durations.tpl", "_grace.tpl"):
        shutil.copy(CHART / "templates" / name, templates)
    (templates / "probe.yaml").write_text(PROBE)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: probe, version: 0.1.0}")
    return chart


def by_helm(probe: Path, configs: list[Object]) -> list[tuple[float, float]]:
    done = helm("template", "x", str(probe), "--values", "-", stdin=json.dumps({"configs": configs}))
    assert done.returncode == 0, done.stderr
    found = sorted(yaml.safe_load_all(done.stdout), key=lambda each: int(each["metadata"]["name"]))
    return [(each["data"]["stop"]["seconds"], each["data"]["start"]["seconds"]) for each in found]


def by_entrypoint(folder: Path, config: Object) -> tuple[int, int]:
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))
    spec = load(Request(str(path)), IN_KUBERNETES).spec
    stop = budget(spec.pools, spec.shutdown.drain_delay).total
    # The start has no counterpart in the entrypoint, which waits as long as it takes.
    first = sum(init.timeout or 3600 for init in spec.init)
    pools = {pool.name: pool for pool in spec.pools}

    def ready(name: str) -> float:
        begin = max((ready(other) for other in pools[name].after), default=first)
        return begin + (pools[name].boot_timeout or 3600)

    start = max((ready(pool.name) for pool in spec.pools if pool.critical), default=first)
    return math.ceil(round(stop, 6)), math.ceil(round(start + 30, 6))


def text_of_parts(parts: tuple[int | None, ...]) -> str:
    return "".join(
        f"{count}{unit}" for count, unit in zip(parts, ("h", "m", "s", "ms"), strict=True) if count is not None
    )


SMALL = st.none() | st.integers(0, 90)
DURATIONS = st.one_of(
    st.integers(1, 200),
    st.integers(1, 2000).map(lambda tenths: tenths / 10),
    st.decimals(1, 300, places=3, allow_nan=False).map(lambda number: f"{number}s"),
    st.integers(1, 500).map(str),
    st.tuples(st.none() | st.integers(0, 2), SMALL, st.integers(1, 90), st.none() | st.integers(0, 5000)).map(
        text_of_parts
    ),
    st.integers(100, 90_000).map("{}ms".format),
)
NOTHING = st.sampled_from([0, "0s", "0", "0ms"])


@st.composite
def configurations(draw: st.DrawFn) -> Object:
    names = draw(st.permutations(POOLS[: draw(st.integers(1, len(POOLS)))]))
    pools: Object = {}
    for index, name in enumerate(names):
        pool: Object = {"command": ["x"], "ready": {"when": "notify"}}
        if index and draw(st.booleans()):
            pool["after"] = draw(st.lists(st.sampled_from(names[:index]), unique=True))
        stop = {"timeout": draw(st.none() | DURATIONS), "delay": draw(st.none() | DURATIONS | NOTHING)}
        pool["stop"] = draw(st.just(None) | st.just({key: value for key, value in stop.items() if value is not None}))
        pool["boot_timeout"] = draw(st.none() | DURATIONS | NOTHING)
        pool["critical"] = draw(st.sampled_from([True, True, False, "false"]))
        pools[name] = {key: value for key, value in pool.items() if value is not None}
    whole: Object = {"pools": pools}
    if draw(st.booleans()):
        whole["shutdown"] = {"drain_delay": draw(st.just("auto") | DURATIONS | NOTHING)}
    timeouts = draw(st.lists(st.none() | DURATIONS | NOTHING, max_size=2))
    whole["init"] = [
        {"name": f"i{index}", "command": ["x"], **({} if timeout is None else {"timeout": timeout})}
        for index, timeout in enumerate(timeouts)
    ]
    return whole


@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(configurations(), min_size=8, max_size=16))
def test_the_chart_computes_what_the_entrypoint_computes(probe: Path, tmp_path: Path, configs: list[Object]) -> None:
    assert by_helm(probe, configs) == [by_entrypoint(tmp_path, config) for config in configs]


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ({}, 5 + 20 + 2 + 5),
        ({"preStop": {"sleepSeconds": 7}}, 7 + 5 + 20 + 2 + 5),
        ({"config": {"shutdown": {"drain_delay": "0s"}}}, 20 + 2 + 5),
        ({"config": {"shutdown": {"drain_delay": "1.2s"}}}, 24 + 5),
        ({"config": {"pools": {"web": {"stop": {"timeout": "1m500ms"}}}}}, 68 + 5),
        ({"config": {"pools": {"web": {"stop": {"timeout": 0.5, "delay": 0}}}}}, 3 + 5),
        ({"config": {"pools": {"web": {"after": ["db"]}, "db": {"command": ["x"]}}}}, 5 + 20 + 20 + 2 + 5),
        ({"terminationGracePeriodSeconds": 32}, 32),
        ({"terminationGracePeriodSeconds": 100}, 100),
        ({"terminationGracePeriodSeconds": 100, "config": {"pools": {"web": {"stop": {"timeout": "${T}"}}}}}, 100),
    ],
)
def test_the_pod_gets_the_time_that_stopping_can_take(more: Object, seconds: int) -> None:
    objects = manifests(more)
    assert pod(objects)["terminationGracePeriodSeconds"] == seconds
    sleep = more.get("preStop", {}).get("sleepSeconds", 0)
    assert config(objects)["shutdown"]["grace_period"] == f"{seconds - sleep}s"


def test_too_short_a_time_is_refused_with_the_numbers() -> None:
    more: Object = {
        "terminationGracePeriodSeconds": 66,
        "preStop": {"sleepSeconds": 3},
        "config": {"pools": {"web": {"after": ["db"]}, "db": {"command": ["x"], "stop": {"timeout": "31.5s"}}}},
    }
    assert (
        "cannot render terminationGracePeriodSeconds: 66 is less than 67, which stopping can take: "
        "preStop sleep 3 + drain delay 5 + web 20 + db 31.5 + 2 + 5"
    ) in refused(more)
    manifests({**more, "terminationGracePeriodSeconds": 67})


@pytest.mark.parametrize("part", ["pools.web.stop.timeout", "pools.web.stop.delay", "shutdown.drain_delay"])
def test_a_time_that_only_the_container_knows_must_be_written_out(part: str) -> None:
    *folders, key = part.split(".")
    more: Object = {key: "${TIME:-20s}"}
    for folder in reversed(folders):
        more = {folder: more}
    assert (
        f"cannot render terminationGracePeriodSeconds: only the container will know config.{part}, ${{TIME:-20s}}: "
        "write a duration there, or give terminationGracePeriodSeconds"
    ) in refused({"config": more})
    manifests({"config": more, "terminationGracePeriodSeconds": 60})


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ({}, 60 + 30),
        ({"startupBudgetSeconds": 200}, 200),
        ({"startupBudgetSeconds": 33, "startupProbe": {"periodSeconds": 10}}, 40),
        ({"config": {"pools": {"web": {"boot_timeout": "1m30s"}}}}, 90 + 30),
        ({"config": {"pools": {"web": {"boot_timeout": 0}}}}, 3600 + 30),
        ({"config": {"init": [{"name": "i", "command": ["x"], "timeout": "5m"}]}}, 300 + 60 + 30),
        ({"config": {"pools": {"web": {"after": ["db"]}, "db": {"command": ["x"]}}}}, 60 + 60 + 30),
        ({"config": {"pools": {"db": {"command": ["x"], "critical": False, "boot_timeout": "9m"}}}}, 60 + 30),
    ],
)
def test_the_startup_probe_waits_as_long_as_a_start_may_take(more: Object, seconds: int) -> None:
    objects = manifests(more)
    startup = container(objects)["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] == seconds
    deployment = next(each for each in objects if each["kind"] == "Deployment")
    assert deployment["spec"]["progressDeadlineSeconds"] == max(600, seconds + 10 + 60)


def test_a_boot_timeout_that_only_the_container_knows_must_be_written_out() -> None:
    more: Object = {"config": {"pools": {"web": {"boot_timeout": "${T}"}}}}
    assert "cannot render startupBudgetSeconds: only the container will know config.pools.web.boot_timeout" in refused(
        more
    )
    manifests({**more, "startupBudgetSeconds": 60})


@pytest.mark.parametrize("name", [name for name in CI if name != "existing-configmap"])
def test_the_entrypoint_has_nothing_against_what_is_rendered(name: str, entrypoint: str, tmp_path: Path) -> None:
    objects = manifests(name)
    path = tmp_path / "config.yaml"
    path.write_text(next(each["data"]["config.yaml"] for each in objects if "config.yaml" in each.get("data", {})))
    given = container(objects).get("args", ["--"])[1:]
    sets = tuple(f"pools.{pool}.command={json.dumps(given)}" for pool in config(objects)["pools"] if given)
    sleep = container(objects).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = float(pod(objects)["terminationGracePeriodSeconds"] - sleep)

    command = [entrypoint, "check", "-c", str(path), "--grace-period", f"{grace:g}s"]
    command += [word for assignment in sets for word in ("--set", assignment)]
    environ = {"PATH": "/usr/bin:/bin", **IN_KUBERNETES}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if name != "everything":  # there it is longer than it must be
        load(Request(str(path), sets, strict_grace=True, grace_period=grace - 5), IN_KUBERNETES)
        with pytest.raises(ConfigError, match="stopping can take"):
            load(Request(str(path), sets, strict_grace=True, grace_period=grace - 6), IN_KUBERNETES)
