"""How a pool's workers are watched, stopped and replaced: what its keys mean, alone and together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from entrypoint.config.spec import Command, Lifecycle, Probe, Ready, Share

if TYPE_CHECKING:
    from entrypoint.config.spec import Pool
    from tests.unit.config.conftest import Errors, Load

SLOT = "$(ENTRYPOINT_SLOT)"


def only(config: Load, *lines: str, **request: object) -> Pool:
    text = "".join(f"    {line}\n" for line in lines)
    pool: Pool = config(f"pools:\n  web:\n    command: [a]\n{text}", **request).spec.pools[0]
    return pool


# The schema says so, too.
WRONG_VALUES = [
    ("ready: {when: soon}", "ready.when: not one of alive, notify, accepting: 'soon'"),
    ("ready: {exec: app --check}", 'ready.exec: list of words expected, not a single value: write [app, "--check"]'),
    ("ready: {exec: []}", "ready.exec: must not be empty"),
    ("ready: {exec: [a], periods: 1}", "ready.periods: unknown key (did you mean period?)"),
    ("boot_timeout: never", "boot_timeout: not a duration such as 500ms, 30s, 1m30s: 'never'"),
    ("heartbeat: 30s", "heartbeat: a mapping expected, not a single value"),
    ("heartbeat: {timeout: 0.5}", "heartbeat.timeout: less than 1s (0 = no heartbeat): '0.5'"),
    (
        "heartbeat: {abort_signal: TURM}",
        "heartbeat.abort_signal: not a signal such as TERM, SIGINT, RTMIN+3, 15: 'TURM'",
    ),
    ("liveness: {exec: {command: [a]}}", "liveness.exec: list of words expected, not a mapping"),
    ("liveness: {tcp: [a]}", "liveness.tcp: HOST:PORT expected, not a list"),
    ("liveness: {exec: [a], failure_threshold: 0}", "liveness.failure_threshold: out of range 1 to 1000: '0'"),
    ("liveness: {exec: [a], periodSeconds: 1}", "liveness.periodSeconds: unknown key (did you mean period?)"),
    (
        "lifecycle: {pre_stop: sleep 5}",
        'lifecycle.pre_stop: list of words expected, not a single value: write [sleep, "5"]',
    ),
    ("lifecycle: {preStop: [a]}", "lifecycle.preStop: unknown key (did you mean pre_stop?)"),
    ("rollout: {max_surge: half}", "rollout.max_surge: not a count or a percentage such as 2, 25%: 'half'"),
    ("rollout: {max_surge: -1}", "rollout.max_surge: out of range 0 to 10000: '-1'"),
    ("rollout: {max_surge: 1.5}", "rollout.max_surge: not a count or a percentage such as 2, 25%: '1.5'"),
    ("rollout: {maxSurge: 1}", "rollout.maxSurge: unknown key (did you mean max_surge?)"),
    ("min_ready_workers: all", "min_ready_workers: not a count or a percentage such as 2, 25%: 'all'"),
]
WRONG_BEYOND_THE_SCHEMA = [
    ("ready: {exec: ['']}", "ready.exec[0]: the program is an empty string"),
    ("ready: {exec: [a], period: 99ms}", "ready.period: out of range 100ms to 8784h: '99ms'"),
    ("ready: {exec: [a], timeout: 0s}", "ready.timeout: out of range 10ms to 8784h: '0s'"),
    ("ready: {when: notify, exec: [a]}", "ready.when: not together with exec, http or tcp"),
    ("ready: {when: alive, tcp: 'h:1'}", "ready.when: not together with exec, http or tcp"),
    ("ready: {after: 1s, exec: [a]}", "ready.after: not together with exec, http or tcp"),
    ("ready: {when: notify, after: 1s}", "ready.after: only with when: alive"),
    ("ready: {period: 1s}", "ready.period: only with exec, http or tcp"),
    ("ready: {when: notify, initial_delay: 1s}", "ready.initial_delay: only with exec, http or tcp"),
    (
        "ready: {exec: [a], tcp: 'h:1'}",
        "ready.tcp: only one of exec, http and tcp can be there, and there is exec",
    ),
    ("ready: {when: accepting}", "ready.when: a pool without sockets accepts on none: 'accepting'"),
    ("ready: {after: 60s}", "ready.after: 1m must be less than boot_timeout, 1m"),
    ("boot_timeout: 10s", "boot_timeout: 10s must be more than ready.after, by default 10s"),
    ("{ready: {after: 5s}, boot_timeout: 2s}", "ready.after: 5s must be less than boot_timeout, 2s"),
    (
        "{ready: {exec: [a], initial_delay: 3s}, boot_timeout: 2s}",
        "ready.initial_delay: 3s must be less than boot_timeout, 2s",
    ),
    ("heartbeat: {timeout: 999ms}", "heartbeat.timeout: less than 1s (0 = no heartbeat): '999ms'"),
    ("heartbeat: {abort_signal: KILL}", "heartbeat.abort_signal: a process cannot catch this signal: 'KILL'"),
    ("heartbeat: {abort_signal: 19}", "heartbeat.abort_signal: a process cannot catch this signal: '19'"),
    ("liveness: {}", "liveness: exec, http or tcp is missing"),
    ("liveness: {period: 1s}", "liveness: exec, http or tcp is missing"),
    (
        "liveness: {http: 'http://h/', tcp: 'h:1'}",
        "liveness.tcp: only one of exec, http and tcp can be there, and there is http",
    ),
    ("lifecycle: {post_start: ['']}", "lifecycle.post_start[0]: the program is an empty string"),
    (
        "rollout: {max_surge: 0}",
        "rollout.max_surge: max_surge and max_unavailable cannot both be 0: nothing could be replaced",
    ),
    (
        "rollout: {max_surge: 0%, max_unavailable: 0%}",
        "rollout.max_surge: max_surge and max_unavailable cannot both be 0: nothing could be replaced",
    ),
    ("rollout: {max_surge: 1001%}", "rollout.max_surge: out of range 0 to 1000%: '1001%'"),
    ("rollout: {max_unavailable: 101%}", "rollout.max_unavailable: out of range 0 to 100%: '101%'"),
    ("rollout: {min_ready: 10m}", "rollout.min_ready: the deadline of 10m is not more than min_ready, 10m"),
    (
        "rollout: {min_ready: 5s, deadline: 5s}",
        "rollout.deadline: the deadline of 5s is not more than min_ready, 5s",
    ),
    ("min_ready_workers: 101%", "min_ready_workers: out of range 0 to 100%: '101%'"),
]


@pytest.mark.parametrize(("line", "message"), WRONG_VALUES + WRONG_BEYOND_THE_SCHEMA)
def test_what_is_wrong_is_told_with_its_line(errors: Errors, line: str, message: str) -> None:
    text = f"pools:\n  web:\n    command: [a]\n    {line}\n"
    if line.startswith("{"):
        text = f"pools:\n  web:\n    <<: {line}\n\n    command: [a]\n"
    number = 3 if line.startswith("{") else 4
    assert errors(text) == [f"config.yaml:{number}: pools.web.{message}"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "https://localhost:8443", "http://[::1]:80/healthz?deep=1", "http://app.example/a%20b",
        f"http://127.0.0.1:80{SLOT}/healthz", "http://$(HOST)/", "http://h?x", "${URL}",
    ],
)  # fmt: skip
def test_urls_of_probes(config: Load, url: str) -> None:
    probe = only(config, f"liveness: {{http: '{url}'}}", environ={"URL": "http://from/env"}).liveness
    assert probe is not None
    assert probe.http == url.replace("${URL}", "http://from/env")
    assert probe.display == url


@pytest.mark.parametrize(
    "url",
    [
        "localhost:80", "//localhost/", "ftp://h/", "unix:/x", "http:///healthz", "http://", "http://h ealth/",
        "http://h/a b", "http://h/#part", "http://user:pass@h/", "http://h:http/", "http://::1/", "http://h:/",
        "http://h/é",
    ],
)  # fmt: skip
def test_no_urls_of_probes(errors: Errors, url: str) -> None:
    (line,) = errors(f"pools:\n  web:\n    command: [a]\n    liveness: {{http: '{url}'}}\n")
    assert line.startswith("config.yaml:4: pools.web.liveness.http: not ")
    assert line.endswith(repr(url))


@pytest.mark.parametrize("address", ["127.0.0.1:80", "localhost:65535", "[::1]:1", f"h:80{SLOT}", "h:$(PORT)"])
def test_addresses_of_probes(config: Load, address: str) -> None:
    assert only(config, f"ready: {{tcp: '{address}'}}").ready.probe == Probe(tcp=address, period=1.0, display=address)


@pytest.mark.parametrize("address", ["80", ":80", "h", "h:", "::1:80", "h:http", "h:-1", "[::1]", "h:80/x", "a b:80"])
def test_no_addresses_of_probes(errors: Errors, address: str) -> None:
    assert errors(f"pools:\n  web:\n    command: [a]\n    ready: {{tcp: '{address}'}}\n") == [
        f"config.yaml:4: pools.web.ready.tcp: not HOST:PORT: '{address}'"
    ]


@pytest.mark.parametrize("port", ["0", "65536", "999999999999999999999"])
@pytest.mark.parametrize("probe", ["http: 'http://h:PORT/'", "tcp: 'h:PORT'"])
def test_no_port_of_a_probe(errors: Errors, probe: str, port: str) -> None:
    (line,) = errors(f"pools: {{web: {{command: [a], ready: {{{probe.replace('PORT', port)}}}}}}}")
    assert "the port is not a number from 1 to 65535" in line


def test_a_ready_probe_asks_more_often_than_a_liveness_probe(config: Load) -> None:
    pool = only(config, "ready: {exec: [a, b]}", "liveness: {exec: [c]}")
    assert pool.ready == Ready("probe", probe=Probe(Command(("a", "b"), "a b"), period=1.0, display="a b"))
    assert pool.liveness == Probe(Command(("c",), "c"), display="c")
    assert pool.liveness.period == 10.0


@pytest.mark.parametrize(
    ("ready", "shown"),
    [
        ("{}", {"when": "alive", "after": "10s"}),
        ("{after: 1}", {"when": "alive", "after": "1s"}),
        ("{when: notify}", {"when": "notify"}),
        (
            "{tcp: 'h:1', timeout: 3}",
            {"tcp": "h:1", "period": "1s", "timeout": "3s", "failure_threshold": 3, "initial_delay": "0s"},
        ),
    ],
)
def test_only_what_counts_for_readiness_is_shown(config: Load, ready: str, shown: object) -> None:
    loaded = config(f"pools: {{web: {{command: [a], ready: {ready}}}, other: {{command: [b]}}}}")
    assert loaded.resolved["pools"]["web"]["ready"] == shown
    assert loaded.resolved["pools"]["other"]["ready"] == {"when": "alive", "after": "10s"}


def test_accepting_takes_a_socket(config: Load) -> None:
    text = "pools: {web: {command: [a], sockets: [s], ready: {when: accepting}}}\nsockets: {s: {bind: ':80'}}"
    assert config(text).spec.pools[0].ready == Ready("accepting")


@pytest.mark.parametrize(
    "lines",
    [
        ("boot_timeout: 0", "ready: {after: 10m}"),
        ("boot_timeout: 10001ms",),
        ("ready: {after: 59s}",),
        ("boot_timeout: 1s", "ready: {when: notify}"),
        ("boot_timeout: 1s", "ready: {exec: [a]}"),
        ("boot_timeout: 1s", "ready: {after: 0s}"),
    ],
)
def test_a_boot_that_can_be_in_time(config: Load, lines: tuple[str, ...]) -> None:
    only(config, *lines)


@pytest.mark.parametrize("text", ["0", "0s", "1", "1s", "1000ms", "1h"])
def test_heartbeats(config: Load, text: str) -> None:
    timeout = only(config, f"heartbeat: {{timeout: {text}}}").heartbeat.timeout
    assert timeout == 0 or timeout >= 1


SHARED = [
    ("http", "http://127.0.0.1:8000/healthz"),
    ("http", "http://127.0.0.1:8000/$$(ENTRYPOINT_SLOT)"),
    ("tcp", "127.0.0.1:8000"),
    ("tcp", "$(HOST):8000"),
]
REASON = "must contain $(ENTRYPOINT_SLOT) with more than one worker: a shared socket would answer for another"


@pytest.mark.parametrize(("kind", "address"), SHARED)
@pytest.mark.parametrize("workers", ["2", "auto", "{auto: true, max: 1}"])
@pytest.mark.parametrize("part", ["ready", "liveness"])
def test_an_address_that_several_workers_share(
    errors: Errors, part: str, workers: str, kind: str, address: str
) -> None:
    text = f"pools:\n  web:\n    command: [a]\n    workers: {workers}\n    {part}:\n      {kind}: {address}\n"
    environ = {"ENTRYPOINT_CPUS": "1"}
    assert errors(text, environ) == [f"config.yaml:6: pools.web.{part}.{kind}: {REASON}"]


@pytest.mark.parametrize("part", ["ready", "liveness"])
@pytest.mark.parametrize(
    "probe", [f"http: 'http://h:80{SLOT}/'", f"tcp: 'h:80{SLOT}'", "tcp: 'h:$(PORT)'", "exec: [a]"]
)
def test_an_address_of_each_worker(config: Load, part: str, probe: str) -> None:
    lines = ("workers: 2", f"env: {{PORT: '80{SLOT}'}}", f"{part}: {{{probe}}}")
    only(config, *lines)
    assert config("pools:\n  web:\n    command: [a]\n    " + "\n    ".join(lines), strict_grace=True).warnings == ()


def test_workers_from_elsewhere_share_an_address_as_well(errors: Errors) -> None:
    text = "pools:\n  web:\n    command: [a]\n    liveness: {tcp: 'h:1'}\n"
    told = [f"config.yaml:4: pools.web.liveness.tcp: {REASON}"]
    assert errors(text, {"WEB_CONCURRENCY": "2"}) == told
    assert errors(text, workers=2) == told


def test_check_warns_of_a_rollout_that_cannot_wait_for_its_old_workers(config: Load) -> None:
    text = """
    pools:
      web: {command: [web], stop: {timeout: 20m}}
    """
    assert any("an old worker may take longer to stop, 20m" in w for w in config(text, strict_grace=True).warnings)


@pytest.mark.parametrize(("kind", "address"), SHARED)
def test_check_warns_of_one_worker_that_a_rollout_makes_two(config: Load, kind: str, address: str) -> None:
    text = f"pools: {{web: {{command: [a], ready: {{{kind}: '{address}'}}, liveness: {{{kind}: '{address}'}}}}}}"
    why = "while a rollout runs the old worker and the new one, either may answer for the other"
    assert config(text, strict_grace=True).warnings == (
        f"pools.web.ready: does not contain $(ENTRYPOINT_SLOT): {why}",
        f"pools.web.liveness: does not contain $(ENTRYPOINT_SLOT): {why}",
    )
    assert config(text).warnings == ()
    alone = ("pools.web.rollout={max_surge: 0, max_unavailable: 1}",)
    assert config(text, strict_grace=True, sets=alone).warnings == ()


def test_check_warns_of_a_program_that_ends_at_once_for_ever(config: Load) -> None:
    text = "pools: {web: {command: [a], restart: {min_uptime: 0s}}}"
    assert config(text, strict_grace=True).warnings == (
        (
            "pools.web.restart.min_uptime: with 0s nothing counts as failed: "
            "a program that ends at once is started again at once, for ever"
        ),
    )
    assert config(text).warnings == ()
    assert config(text, strict_grace=True, sets=("pools.web.restart.policy=on-failure",)).warnings == ()


def test_hooks_are_optional(config: Load) -> None:
    assert only(config, "lifecycle: {}").lifecycle == Lifecycle()
    assert only(config, "lifecycle: {post_start: }").lifecycle == Lifecycle()
    assert only(config, "lifecycle: {pre_stop: [a, 'b c']}").lifecycle == Lifecycle(
        pre_stop=Command(("a", "b c"), "a 'b c'")
    )


@pytest.mark.parametrize(
    ("text", "share"),
    [("0", Share(0)), ("3", Share(3)), ("0%", Share(0, percent=True)), ("25%", Share(25, percent=True))],
)
def test_shares(config: Load, text: str, share: Share) -> None:
    pool = only(config, f"rollout: {{max_surge: 1, max_unavailable: {text}}}", f"min_ready_workers: '{text}'")
    assert (pool.rollout.max_unavailable, pool.min_ready_workers) == (share, share)


def test_a_rollout_may_replace_before_or_after(config: Load) -> None:
    rollout = only(config, "rollout: {max_surge: 0, max_unavailable: 1%, min_ready: 1h, deadline: 0}").rollout
    assert rollout == (Share(0), Share(1, percent=True), 3600.0, 0.0)


def test_a_hook_takes_no_more_than_its_part_of_the_grace_period(config: Load) -> None:
    text = "pools: {web: {command: [a], lifecycle: {pre_stop: [sleep, '5']}}}\nshutdown: {grace_period: 22s}"
    assert config(text, strict_grace=True).warnings == ()


MINIMAL = "pools: {web: {command: [a]}}\n"


@pytest.mark.parametrize(
    ("signals", "mapped"),
    [
        ("{}", ()),
        ("{HUP: reload}", ((1, "reload"),)),
        ("{SIGHUP: ignore}", ((1, "ignore"),)),
        ("{1: shutdown}", ((1, "shutdown"),)),
        ("{HUP: restart, USR1: forward, USR2: forward, WINCH: ignore}", ()),
        ("{INT: quit, QUIT: shutdown, TTIN: scale_down}", ((2, "quit"), (3, "shutdown"), (21, "scale_down"))),
        ("{RTMIN: scale_up, 64: forward}", ((34, "scale_up"), (64, "forward"))),
    ],
)
def test_signals(config: Load, signals: str, mapped: tuple[tuple[int, str], ...]) -> None:
    assert config(f"{MINIMAL}signals: {signals}").spec.signals == mapped


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        ("{TERM: ignore}", "signals.TERM: cannot be mapped: it is the graceful shutdown"),
        ("{15: ignore}", "signals.15: cannot be mapped: it is the graceful shutdown"),
        ("{SIGCHLD: ignore}", "signals.SIGCHLD: cannot be mapped: it tells of the end of a child"),
        ("{CLD: ignore}", "signals.CLD: cannot be mapped: it tells of the end of a child"),
        ("{KILL: quit}", "signals.KILL: cannot be mapped: nothing can catch it"),
        ("{STOP: quit}", "signals.STOP: cannot be mapped: nothing can catch it"),
        *(
            (f"{{{name}: ignore}}", f"signals.{name}: cannot be mapped: it is a fault of the master itself")
            for name in ("SEGV", "BUS", "FPE", "ILL")
        ),
        ("{HUPP: reload}", "signals.HUPP: not a signal such as TERM, SIGINT, RTMIN+3, 15"),
        ("{32: reload}", "signals.32: not a signal such as TERM, SIGINT, RTMIN+3, 15"),
        (
            "{HUP: reboot}",
            "signals.HUP: not one of shutdown, quit, restart, reload, scale_up, scale_down, forward, ignore: 'reboot'",
        ),
        ("{HUP: reload, SIGHUP: ignore}", "signals.SIGHUP: listed twice: HUP"),
        ("[HUP]", "signals: a mapping expected, not a list"),
    ],
)
def test_no_signals(errors: Errors, signals: str, message: str) -> None:
    assert errors(f"{MINIMAL}signals: {signals}") == [f"config.yaml:2: {message}"]


def test_the_defaults_of_signals_are_shown_beside_what_is_mapped(config: Load) -> None:
    shown = {"HUP": "restart", "USR1": "forward", "USR2": "forward", "WINCH": "ignore"}
    assert config(MINIMAL).resolved["signals"] == shown
    loaded = config(f"{MINIMAL}signals: {{SIGUSR2: '${{DO}}', ALRM: quit}}", {"DO": "reload"})
    assert loaded.resolved["signals"] == {**shown, "USR2": "${DO}", "ALRM": "quit"}
    assert loaded.spec.signals == ((12, "reload"), (14, "quit"))


@pytest.mark.parametrize("output", ["inherit", "json"])
def test_where_output_goes(config: Load, output: str) -> None:
    assert only(config, f"output: {output}").output == output
    assert only(config, "workers: 1").output == "inherit"
