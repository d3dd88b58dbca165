"""What is derived from the table of keys: JSON Schema and docs/CONFIG.md. And what importing all this costs."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml

from entrypoint.config.initmode import init_spec, quote
from entrypoint.config.load import ConfigError
from entrypoint.config.location import find_config
from entrypoint.config.schema import json_schema
from entrypoint.config.spec import Control, Observer, Pool, Process, Ready, Restart, Spec, Stop
from tests.unit.config.test_build_pool import WRONG_VALUES
from tests.unit.config.test_load import POOL_ERRORS

if TYPE_CHECKING:
    from tests.unit.config.conftest import Errors, Load

VALIDATOR = jsonschema.Draft202012Validator(json_schema())

GOOD = [
    "pools: {web: {command: [a, 1, 1.5, true]}}",
    "pools: {web: {command: [a], workers: auto}}",
    "pools: {web: {command: [a], workers: '${N:-4}'}}",
    "pools: {web: {command: [a], workers: {auto: true, per_cpu: 2, memory: 300Mi}}}",
    "pools: {web: {command: [a], env: {A: 1, B: , C: {file: /etc/passwd}}, env_from: [], umask: 022, nice: -5}}",
    "pools: {web: {command: [a], env: , sockets: ~, stop: }}\nsockets:\nlog:\n",
    "pools: {web: {command: [a], stop: {signal: SIGINT, timeout: 90, quiesce: 1s}, ready: {after: 30s}}}",
    "pools: {web: {command: [a], stop: {signal: 15, timeout: '${T:-10s}', delay: 0}}}",
    "pools: {web: {command: [a], rlimits: {nofile: 65536, core: unlimited, stack: {soft: 8Mi, hard: unlimited}}}}",
    "pools: {web: {command: [a], restart: {policy: never, backoff: {factor: 1.5}}, critical: false, output: inherit}}",
    "pools: {web: {command: [a], sockets: [s]}}\nsockets: {s: {bind: 'unix:/s', mode: '0660'}}",
    "pools: {web: {command: [a]}}\ninit: [{name: x, command: [a], timeout: 5m}]",
    "pools: {web: {command: [a]}}\nshutdown: {drain_delay: auto, grace_period: 1h}\nlog: {level: debug}",
    "pools: {web: {command: [a]}}\nobserver: {enabled: false}\ncontrol: {enabled: false}\nreload: {watch: false}",
    "pools: {web: {command: [a]}}\ncontrol: {socket: /c.sock}\nreload: {watch: true}\nsignals: {HUP: reload, 10: quit}",
    "pools: {web: {command: [a], ready: {when: notify}, boot_timeout: 0, heartbeat: {timeout: 0, abort_signal: QUIT}}}",
    "pools: {web: {command: [a], ready: {exec: [a, 1]}, boot_timeout: '${T:-1m}', heartbeat: {timeout: 1.5}}}",
    "pools: {web: {command: [a], ready: {tcp: 'h:1', period: 0.5}, liveness: {http: 'http://h', timeout: 1}}}",
    "pools: {web: {command: [a], liveness: ~, lifecycle: {pre_stop: , post_start: [a]}, heartbeat: {timeout: 90s}}}",
    "pools: {web: {command: [a], stop: {signal: sigterm}, heartbeat: {abort_signal: RTMAX-1}}}",
    "pools: {web: {command: [a], stop: {signal: SIGRTMIN+3}}}\nsignals: {rtmin+3: quit, SIGRTMAX-1: quit, usr2: quit}",
    "x-stop: &stop {stop: {timeout: 5s}}\nx-: {anything: [1, {at: all}]}\npools: {web: {<<: *stop, command: [a]}}",
    "pools: {web: {command: [a], rollout: {max_surge: 25%, max_unavailable: 2}, min_ready_workers: '50%'}}",
]
# What only `check` can find: it concerns other keys, the system, or bytes.
BEYOND_SCHEMA = (
    "command: ['']", 'command: [a, "b', "user: nobody", "group: nobody", "workers: {auto: true, min: 3",
    "sockets: [a, a]", "after:", "env: {'A=B'", "env: {A: {file", "env_from", "rlimits: {nofile: {soft: 2, h",
    "rlimits: {nofile: {soft: u",
    "stop: {timeout: 5s, q", "stop: {timeout: 0s", "restart: {backoff", "cwd: '${NOPE", "umask: 99", "critical: yes",
)  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_the_schema_accepts_what_loads(config: Load, text: str) -> None:
    config(text)
    VALIDATOR.validate(yaml.safe_load(text))


@pytest.mark.parametrize("line", [line for line, _ in POOL_ERRORS + WRONG_VALUES if not line.startswith(BEYOND_SCHEMA)])
def test_the_schema_refuses_what_does_not(errors: Errors, line: str) -> None:
    text = f"pools:\n  web:\n    {'' if line.startswith('command') else 'command: [a]'}\n    {line}\n"
    assert errors(text)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "pools: {}",
        "{}",
        "[]",
        "pools: {Web: {command: [a]}}",
        "pools: {w: {}}",
        *(
            f"pools: {{w: {{command: [a]}}}}\n{line}"
            for line in (
                "x: 1",
                "X-a: 1",
                "signals: {SIGTERM+1: quit}",
                "signals: {sigterm: quit}",
                "control: {enabled: 1}",
                "signals: {TERM: quit}",
                "signals: {HUP: reboot}",
            )
        ),
    ],
)
def test_the_schema_refuses_at_the_top(errors: Errors, text: str) -> None:
    assert errors(text)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(yaml.safe_load(text))


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_of_the_schema_is_closed_and_described() -> None:
    def walk(schema: object, path: str) -> None:
        if isinstance(schema, list):
            for item in schema:
                walk(item, path)
        if not isinstance(schema, dict):
            return
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path
            for key, value in schema["properties"].items():
                assert value["description"].strip(), f"{path}.{key}"
        for key, value in schema.items():
            if key not in ("default", "enum", "type"):
                walk(value, f"{path}.{key}")

    walk(json_schema(), "")


def test_the_schema_gives_defaults_as_json_would() -> None:
    pool = json_schema()["properties"]["pools"]["additionalProperties"]["properties"]
    assert (
        pool["workers"]["default"],
        pool["critical"]["default"],
        pool["stop"]["properties"]["timeout"]["default"],
    ) == (
        1,
        True,
        "20s",
    )
    for schema in pool.values():
        if "default" in schema:
            jsonschema.Draft202012Validator(schema).validate(schema["default"])


def test_the_defaults_of_signals_are_in_the_schema() -> None:
    assert json_schema()["properties"]["signals"]["default"]["HUP"] == "restart"


def test_init_mode() -> None:
    process = Process(("sh", "-c", "echo '$(A)'"), "sh -c 'echo '\"'\"'$(A)'\"'\"''")
    expected = Spec(
        (
            Pool(
                "main",
                process,
                ready=Ready(after=0.0),
                boot_timeout=0.0,
                stop=Stop(timeout=None, quiesce=0.0, delay=0.0),
                restart=Restart(policy="never"),
                foreground=True,
            ),
        ),
        observer=Observer(enabled=False),
        control=Control(enabled=False),
    )
    for workers in (None, 1):
        assert init_spec(process.argv, workers, {"KUBERNETES_SERVICE_HOST": "x"}) == expected


def test_several_workers_without_a_file_are_a_pool() -> None:
    spec = init_spec(("a", "b c"), 3, {"KUBERNETES_SERVICE_HOST": "x"})
    assert spec.pools == (Pool("main", Process(("a", "b c"), "a 'b c'"), workers=3),)
    assert spec.shutdown.drain_delay == 5.0
    assert spec.control == Control(enabled=True)
    assert init_spec(("a",), 3, {}).shutdown.drain_delay == 0.0


@pytest.mark.parametrize(
    ("command", "workers"), [((), None), (("",), None), (("a",), 0), (("a",), -1), (("a",), 10**9)]
)
def test_a_wrong_command_line(command: tuple[str, ...], workers: int | None) -> None:
    with pytest.raises(ConfigError) as raised:
        init_spec(command, workers, {})
    assert raised.value.exit_code == 78
    assert raised.value.errors[0].startswith("cannot run: ")


def test_where_the_configuration_is() -> None:
    assert find_config("a", {"ENTRYPOINT_CONFIG": "b"}) == "a"
    assert find_config(None, {"ENTRYPOINT_CONFIG": "b"}) == "b"
    assert find_config(None, {"ENTRYPOINT_CONFIG": ""}) == "/etc/entrypoint/config.yaml"


def test_quote_is_read_back_by_a_shell() -> None:
    import shlex

    words = ("a", "", "b c", "it's", '"', "$x", "é", "a=b", "~", "*")
    assert tuple(shlex.split(quote(words))) == words


def imported_by(module: str) -> set[str]:
    code = f"import sys; import {module}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_loading_imports_nothing_slow() -> None:
    slow = {
        "dataclasses",
        "inspect",
        "argparse",
        "jsonschema",
        "difflib",
        "socket",
        "shlex",
        "resource",
        "dotenv",
        "hashlib",
    }
    assert not slow & imported_by("entrypoint.config.load")


@pytest.mark.parametrize("module", ["initmode", "auto", "envfiles", "expand", "errors"])
def test_what_the_master_uses_imports_no_yaml(module: str) -> None:
    assert not {"yaml", "signal", "entrypoint.config.fields"} & imported_by(f"entrypoint.config.{module}")
