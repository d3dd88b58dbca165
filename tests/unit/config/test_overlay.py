"""What the environment and the command line lay over the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from entrypoint.config.spec import Command, Probe, Share

if TYPE_CHECKING:
    from tests.unit.config.conftest import Errors, Load

ACTIONS = "shutdown, quit, restart, reload, scale_up, scale_down, forward, ignore"
TEXT = """
pools:
  web: {command: [a, b], env: {APP_MODE: dev}, stop: &stop {timeout: 5s}}
  my-cache: {command: [c], stop: *stop}
sockets: {http: {bind: ":80"}}
init: [{name: one, command: [i]}]
"""


def test_the_environment_overrides_the_file(config: Load) -> None:
    spec = config(
        TEXT,
        {
            "ENTRYPOINT_POOLS__WEB__WORKERS": "8",
            "ENTRYPOINT_POOLS__MY_CACHE__COMMAND": '[redis, "--port", 1]',
            "entrypoint_pools__web__critical": "false",
            "ENTRYPOINT_POOLS__WEB__SOCKETS": "[http]",
            "ENTRYPOINT_POOLS__WEB__STOP__SIGNAL": "INT",
            "ENTRYPOINT_SOCKETS__HTTP__BIND": "127.0.0.1:81",
            "ENTRYPOINT_INIT__0__TIMEOUT": "3s",
            "ENTRYPOINT_SHUTDOWN__DRAIN_DELAY": "7",
            "ENTRYPOINT_LOG": "not ours: it has no double underscore",
            "ENTRYPOINT_SERVICE_HOST": "10.0.0.1",
            "OTHER__THING": "x",
        },
    ).spec
    web, cache = spec.pools
    assert (web.workers, web.critical, web.sockets, web.stop.signal, web.stop.timeout) == (8, False, ("http",), 2, 5.0)
    assert cache.process.argv == ("redis", "--port", "1")
    assert cache.stop.signal == 15  # the anchor's other user keeps what it had
    assert spec.sockets[0].bind == "127.0.0.1:81"
    assert spec.init[0].timeout == 3.0
    assert spec.shutdown.drain_delay == 7.0


def test_how_workers_are_watched_can_be_overridden(config: Load) -> None:
    spec = config(
        TEXT,
        {
            "ENTRYPOINT_POOLS__WEB__HEARTBEAT__TIMEOUT": "30",
            "ENTRYPOINT_POOLS__WEB__LIVENESS__EXEC": "[check, 1]",
            "ENTRYPOINT_POOLS__WEB__LIVENESS__PERIOD": "5s",
            "ENTRYPOINT_POOLS__WEB__READY__WHEN": "notify",
            "ENTRYPOINT_POOLS__WEB__BOOT_TIMEOUT": "0",
            "ENTRYPOINT_POOLS__WEB__ROLLOUT__MAX_SURGE": "25%",
            "ENTRYPOINT_POOLS__WEB__LIFECYCLE__PRE_STOP": "[leave]",
            "ENTRYPOINT_CONTROL__ENABLED": "false",
            "ENTRYPOINT_RELOAD__WATCH": "true",
            "ENTRYPOINT_SIGNALS__HUP": "reload",
            "entrypoint_signals__usr1": "quit",
            "ENTRYPOINT_SIGNALS__38": "shutdown",
        },
        sets=(
            "pools.my-cache.ready={tcp: 'h:1'}",
            "pools.my-cache.min_ready_workers=50%",
            "pools.my-cache.rollout.min_ready=5s",
            "control.socket=/run/c.sock",
            "signals.SIGUSR2=ignore",
            "signals.RTMIN+3=shutdown",
        ),
    ).spec
    web, cache = spec.pools
    assert web.heartbeat.timeout == 30.0
    assert web.liveness == Probe(Command(("check", "1"), "check 1"), period=5.0, display="check 1")
    assert (web.ready.when, web.boot_timeout) == ("notify", 0.0)
    assert web.rollout.max_surge == Share(25, percent=True)
    assert web.lifecycle.pre_stop == Command(("leave",), "leave")
    assert cache.ready.probe == Probe(tcp="h:1", period=1.0, display="h:1")
    assert (cache.min_ready_workers, cache.rollout.min_ready) == (Share(50, percent=True), 5.0)
    assert spec.control == (False, "/run/c.sock")
    assert spec.reload.watch
    assert dict(spec.signals) == {1: "reload", 10: "quit", 12: "ignore", 37: "shutdown", 38: "shutdown"}


def test_variables_through_the_environment(config: Load) -> None:
    secret = "{weird: [pass # word"
    loaded = config(
        TEXT,
        {
            "ENTRYPOINT_POOLS__WEB__ENV__APP_MODE": "prod",
            "ENTRYPOINT_POOLS__WEB__ENV__DB__URL": secret,
        },
    )
    assert loaded.spec.pools[0].process.env == (("APP_MODE", "prod"), ("DB__URL", secret))
    assert loaded.resolved["pools"]["web"]["env"] == {"APP_MODE": "***", "DB__URL": "***"}


def test_a_secret_file_through_an_overlay(config: Load, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("secrets") / "db"
    secret.write_text("x")
    for sets in ((f"pools.web.env.DB={{file: {secret}}}",), (f"pools.web.env.DB.file={secret}",)):
        assert config(TEXT, sets=sets).spec.pools[0].process.env_files == (("DB", str(secret)),)


@pytest.mark.parametrize(
    "name",
    [
        "ENTRYPOINT_POOLS__NOPE__WORKERS",
        "ENTRYPOINT_POOL__WEB__WORKERS",
        "ENTRYPOINT_POOLS__WEB__WORKER",
        "ENTRYPOINT_POOLS__WEB__CRITICAL__X",
        "ENTRYPOINT_POOLS__WEB__COMMAND__7",
        "ENTRYPOINT_POOLS____WORKERS",
        "ENTRYPOINT_SOCKETS__X__BIND",
        "ENTRYPOINT_POOLS__WEB__COMMAND__²",
        "ENTRYPOINT_SIGNALS__TERM",
        "ENTRYPOINT_SIGNALS__HUPP",
        "ENTRYPOINT_POOLS__WEB__HEARTBEAT__TIME_OUT",
    ],
)
def test_a_variable_that_names_nothing(errors: Errors, name: str) -> None:
    assert errors(TEXT, {name: "1"}) == [f"{name}: names nothing in the configuration"]


def test_a_wrong_value_names_the_variable(errors: Errors) -> None:
    environ = {
        "ENTRYPOINT_POOLS__WEB__WORKERS": "four",
        "ENTRYPOINT_POOLS__WEB__AFTER": "[",
        "ENTRYPOINT_POOLS__WEB__HOOKS": "x",
        "ENTRYPOINT_POOLS__WEB__READY__AFTER": "90s",
        "ENTRYPOINT_SIGNALS__HUP": "9",
    }
    assert errors(TEXT, environ) == [
        "ENTRYPOINT_POOLS__WEB__AFTER: not YAML: did not find expected node content while parsing a flow node",
        "ENTRYPOINT_POOLS__WEB__HOOKS: pools.web.hooks: not supported yet",
        "ENTRYPOINT_POOLS__WEB__WORKERS: pools.web.workers: not a count: 'four'",
        f"ENTRYPOINT_SIGNALS__HUP: signals.HUP: not one of {ACTIONS}: '9'",
        "ENTRYPOINT_POOLS__WEB__READY__AFTER: pools.web.ready.after: 1m30s must be less than boot_timeout, 1m",
    ]


def test_set_overrides_both(config: Load) -> None:
    spec = config(
        TEXT,
        {"ENTRYPOINT_POOLS__WEB__WORKERS": "8"},
        sets=(
            "pools.web.workers=9",
            "pools.web.cwd=/a=b",
            "pools.web.env.X=1: {y",
            "pools.web.env.Y=",
            "pools.new={command: [x], workers: 2}",
            "pools.web.command.1=z",
            "pools.my-cache.workers={auto: true, min: 3, max: 3}",
            "log.level=debug",
        ),
    ).spec
    web, cache, new = spec.pools
    assert (web.workers, web.process.cwd, web.process.argv) == (9, "/a=b", ("a", "z"))
    assert web.process.env == (("APP_MODE", "dev"), ("X", "1: {y"), ("Y", ""))
    assert cache.workers == 3
    assert (new.process.argv, new.workers) == (("x",), 2)
    assert spec.log.level == "debug"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("pools.web.workers=x", "--set pools.web.workers: pools.web.workers: not a count: 'x'"),
        ("pools.web.wrkers=1", "--set pools.web.wrkers: pools.web.wrkers: unknown key (did you mean workers?)"),
        ("pools.web.wrkers.x=1", "--set pools.web.wrkers.x: pools.web.wrkers: unknown key (did you mean workers?)"),
        ("pools.web.workers", "--set pools.web.workers: not PATH=VALUE"),
        ("pools..web=1", "--set pools..web: not PATH=VALUE"),
        ("=1", "--set : not PATH=VALUE"),
        (
            "pools.web.after=a",
            "--set pools.web.after: pools.web.after: list of pools expected, not a single value: write [a]",
        ),
        ("pools.web.command.5=a", "--set pools.web.command.5: names nothing in the configuration"),
        ("pools.web.critical.x=a", "--set pools.web.critical.x: names nothing in the configuration"),
        ("pools.web.env.A={file: /}", "--set pools.web.env.A: pools.web.env.A: cannot read /: it is a directory"),
        ("pools.web.env.A=hunter2\0", "--set pools.web.env.A: pools.web.env.A: holds a NUL byte"),
    ],
)  # fmt: skip
def test_a_wrong_set(errors: Errors, assignment: str, message: str) -> None:
    assert errors(TEXT, sets=(assignment,)) == [message]


def test_flags_are_for_the_pool_main_or_the_only_one(config: Load, errors: Errors) -> None:
    one = config("pools: {x: {command: [a]}}", workers=3, command=("b", "${C}", "$(D)")).spec.pools[0]
    assert (one.workers, one.process.argv, one.process.display) == (3, ("b", "${C}", "$(D)"), "b '${C}' '$(D)'")
    pools = config("pools: {x: {command: [a]}, main: {command: [a]}}", workers=3).spec.pools
    assert [pool.workers for pool in pools] == [1, 3]
    assert errors(TEXT, workers=2, command=("x",)) == [
        "--workers: no pool is named main, and there is more than one",
        "-- COMMAND: no pool is named main, and there is more than one",
    ]
    assert errors("pools: {x: {command: [a]}}", workers=0) == [
        "--workers: pools.x.workers: out of range 1 to 10000: '0'"
    ]


def test_a_command_on_the_command_line_is_enough(config: Load) -> None:
    assert config("pools: {main: {workers: 2}}", command=("a",)).spec.pools[0].process.argv == ("a",)


@pytest.mark.parametrize(
    ("text", "workers", "unset"),
    [
        ("pools: {web: {command: [a]}, b: {command: [b]}}", [7, 1], [("WEB_CONCURRENCY",), ()]),
        ("pools: {x: {command: [a]}}", [7], [("WEB_CONCURRENCY",)]),
        ("pools: {x: {command: [a], workers: 2}}", [2], [()]),
        ("pools: {x: {command: [a]}, y: {command: [a]}}", [1, 1], [(), ()]),
    ],
)
def test_web_concurrency(config: Load, text: str, workers: list[int], unset: list[tuple[str, ...]]) -> None:
    pools = config(text, {"WEB_CONCURRENCY": "7"}).spec.pools
    assert [pool.workers for pool in pools] == workers
    assert [pool.process.unset for pool in pools] == unset


def test_web_concurrency_yields_to_flags_and_variables(config: Load) -> None:
    text = "pools: {web: {command: [a]}}"
    assert config(text, {"WEB_CONCURRENCY": "7"}, workers=2).spec.pools[0].workers == 2
    assert config(text, {"WEB_CONCURRENCY": "7", "ENTRYPOINT_POOLS__WEB__WORKERS": "3"}).spec.pools[0].workers == 3
    assert config(text, {"WEB_CONCURRENCY": ""}).spec.pools[0].workers == 1


def test_web_concurrency_may_be_wrong(errors: Errors) -> None:
    message = "WEB_CONCURRENCY: pools.web.workers: not a count: '${X}'"
    assert errors("pools: {web: {command: [a]}}", {"WEB_CONCURRENCY": "${X}"}) == [message]


SERVICE = {
    "ENTRYPOINT_WEB__PR_12_SERVICE_HOST": "10.0.0.1",
    "ENTRYPOINT_WEB__PR_12_SERVICE_PORT": "80",
    "ENTRYPOINT_WEB__PR_12_SERVICE_PORT_HTTP": "80",
    "ENTRYPOINT_WEB__PR_12_PORT": "tcp://10.0.0.1:80",
    "ENTRYPOINT_WEB__PR_12_PORT_80_TCP": "tcp://10.0.0.1:80",
    "ENTRYPOINT_WEB__PR_12_PORT_80_TCP_PROTO": "tcp",
    "ENTRYPOINT_WEB__PR_12_PORT_80_TCP_PORT": "80",
    "ENTRYPOINT_WEB__PR_12_PORT_80_TCP_ADDR": "10.0.0.1",
}


def test_the_variables_of_a_service_are_left_alone(config: Load) -> None:
    assert config(TEXT, SERVICE) == config(TEXT)


def test_what_only_looks_like_the_variable_of_a_service_is_not(config: Load, errors: Errors) -> None:
    alone = "ENTRYPOINT_WEB__PR_12_SERVICE_HOST"
    assert errors(TEXT, {alone: "x"}) == [f"{alone}: names nothing in the configuration"]
    (line,) = errors(TEXT, {**SERVICE, "ENTRYPOINT_WEB__PR_12_PORTS": "x"})
    assert line.startswith("ENTRYPOINT_WEB__PR_12_PORTS: ")
    of_ours = {f"ENTRYPOINT_POOLS__WEB__ENV__DB_SERVICE_{what}": "x" for what in ("HOST", "PORT")}
    env = dict(config(TEXT, of_ours).spec.pools[0].process.env)
    assert (env["DB_SERVICE_HOST"], env["DB_SERVICE_PORT"]) == ("x", "x")
