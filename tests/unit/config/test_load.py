"""What a configuration file means, and what is said about a wrong one."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest
import yaml

from entrypoint.config.load import ConfigError, Request, load
from entrypoint.config.spec import (
    Auto,
    Backoff,
    Command,
    Control,
    Heartbeat,
    Init,
    Lifecycle,
    Log,
    Pool,
    Probe,
    Process,
    Ready,
    Reload,
    Restart,
    Rollout,
    Share,
    Shutdown,
    Socket,
    Stop,
)
from entrypoint.record import pack, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.config.conftest import Errors, Load

MINIMAL = "pools: {web: {command: [true]}}\n"


def test_defaults_are_those_of_the_spec(config: Load) -> None:
    text = "pools: {web: {command: [a]}}\nsockets: {s: {bind: 'fd:3'}}\ninit: [{name: i, command: [b]}]"
    spec = config(text).spec
    assert spec.pools == (Pool("web", Process(("a",), "a")),)
    assert spec.init == (Init("i", Process(("b",), "b")),)
    assert spec.sockets == (Socket("s", "fd", fd=3, bind="fd:3"),)
    assert spec.shutdown == Shutdown()
    assert spec.log == Log()
    assert spec.control == Control()
    assert spec.reload == Reload()
    assert spec.signals == ()
    assert config("pools: {web: {command: [a], workers: {auto: true}}}").spec.pools[0].auto == Auto()


def test_every_key(config: Load) -> None:
    loaded = config("""
pools:
  web:
    command: [app, "--slot=$(ENTRYPOINT_SLOT)"]
    workers: 4
    env: {A: "1", B: 2}
    cwd: /srv
    umask: 0027
    nice: 5
    rlimits: {nofile: 65536, core: unlimited, stack: {soft: 8Mi, hard: unlimited}}
    oom_score_adj: 500
    sockets: [http]
    after: [cache]
    critical: false
    ready: {when: alive, after: 3s}
    boot_timeout: 30s
    heartbeat: {timeout: 15s, abort_signal: QUIT, abort_grace: 2s}
    liveness: {exec: [check, "$(ENTRYPOINT_SLOT)"], period: 5s, timeout: 2s, failure_threshold: 1, initial_delay: 20s}
    lifecycle: {pre_stop: [leave, now], post_start: [join]}
    rollout: {max_surge: 25%, max_unavailable: 2, min_ready: 5s, deadline: 0s}
    min_ready_workers: 50%
    stop: {signal: INT, timeout: 1m, quiesce: 1s, delay: 0s}
    restart:
      {policy: on-failure, min_uptime: 1s, give_up_after: 0, backoff: {initial: 2s, max: 1m, factor: 3, jitter: 0}}
    output: inherit
  cache: {command: [redis-server]}
init:
  - {name: migrate, command: [manage, migrate], timeout: 5m, env: {X: y}}
sockets:
  http: {bind: "127.0.0.1:8000", backlog: 16, reuse_port: true}
shutdown: {drain_delay: 3s, grace_period: 90s, termination_log: /tmp/log}
log: {level: debug, format: json}
observer: {enabled: false}
control: {enabled: false, socket: /run/x.sock}
reload: {watch: true}
signals: {USR1: reload, SIGWINCH: quit, 14: scale_up}
""")
    import resource

    web, cache = loaded.spec.pools
    assert web == Pool(
        "web",
        Process(
            ("app", "--slot=$(ENTRYPOINT_SLOT)"),
            "app '--slot=$(ENTRYPOINT_SLOT)'",
            env=(("A", "1"), ("B", "2")),
            cwd="/srv",
            umask=0o27,
            nice=5,
            rlimits=(
                (resource.RLIMIT_CORE, -1, -1),
                (resource.RLIMIT_NOFILE, 65536, 65536),
                (resource.RLIMIT_STACK, 8 * 2**20, -1),
            ),
            oom_score_adj=500,
        ),
        workers=4,
        sockets=("http",),
        after=("cache",),
        critical=False,
        ready=Ready("alive", 3.0),
        boot_timeout=30.0,
        heartbeat=Heartbeat(15.0, 3, 2.0),
        liveness=Probe(
            exec=Command(("check", "$(ENTRYPOINT_SLOT)"), "check '$(ENTRYPOINT_SLOT)'"),
            period=5.0,
            timeout=2.0,
            failure_threshold=1,
            initial_delay=20.0,
            display="check '$(ENTRYPOINT_SLOT)'",
        ),
        lifecycle=Lifecycle(Command(("join",), "join"), Command(("leave", "now"), "leave now")),
        rollout=Rollout(Share(25, percent=True), Share(2), 5.0, 0.0),
        min_ready_workers=Share(50, percent=True),
        stop=Stop(2, 60.0, 1.0, 0.0),
        restart=Restart("on-failure", 1.0, 0, Backoff(2.0, 60.0, 3.0, 0.0)),
    )
    assert cache.name == "cache"
    assert loaded.spec.init == (
        Init("migrate", Process(("manage", "migrate"), "manage migrate", env=(("X", "y"),)), 300.0),
    )
    assert loaded.spec.sockets == (
        Socket("http", "tcp", "127.0.0.1", 8000, backlog=16, reuse_port=True, bind="127.0.0.1:8000"),
    )
    assert loaded.spec.shutdown == Shutdown(3.0, 90.0, "/tmp/log")
    assert loaded.spec.log == Log("debug", "json")
    assert loaded.spec.control == Control(enabled=False, socket="/run/x.sock")
    assert loaded.spec.reload == Reload(watch=True)
    assert loaded.spec.signals == ((10, "reload"), (28, "quit"), (14, "scale_up"))
    assert loaded.warnings == ()


def test_text_stays_as_it_is_written(config: Load) -> None:
    spec = config(
        "pools: {web: {command: [NO, 1.10, 0123, 1e3, ~, null, 0x1F, 2001-01-01, '', yes], env: {NO: , A: ~}}}"
    ).spec
    assert spec.pools[0].process.argv == ("NO", "1.10", "0123", "1e3", "~", "null", "0x1F", "2001-01-01", "", "yes")
    assert spec.pools[0].process.env == (("NO", ""), ("A", "~"))


def test_a_key_with_nothing_after_it_is_absent(config: Load) -> None:
    text = "pools:\n  web:\n    command: [a]\n    workers:\n    stop:\n    env:\n    after: ~\n    cwd:\nlog: null\n"
    text += "observer: ~\nsignals:\n"
    assert config(text).spec.pools == config("pools: {web: {command: [a]}}").spec.pools


def test_all_errors_at_once_in_the_order_of_the_file(errors: Errors) -> None:
    assert errors(
        """pools:
  web:
    comand: [uvicorn]
    workers: four
    stop: {timeout: soon, quiesce: 200ms}
    after: [cash]
    sockets: [htp]
  cache:
    command: redis-server --port 1
    nice: 100
sockets:
  http: {bind: 8000}
shutdown: {drain_delay: 1x}
"""
    ) == [
        "config.yaml:2: pools.web: command is missing",
        "config.yaml:3: pools.web.comand: unknown key (did you mean command?)",
        "config.yaml:4: pools.web.workers: not a count: 'four'",
        "config.yaml:5: pools.web.stop.timeout: not a duration such as 500ms, 30s, 1m30s: 'soon'",
        "config.yaml:6: pools.web.after[0]: no such pool: 'cash' (did you mean cache?)",
        "config.yaml:7: pools.web.sockets[0]: no such socket: 'htp' (did you mean http?)",
        (
            "config.yaml:9: pools.cache.command: list of words expected, not a single value: "
            'write [redis-server, "--port", "1"]'
        ),
        "config.yaml:10: pools.cache.nice: out of range -20 to 19: '100'",
        "config.yaml:12: sockets.http.bind: not HOST:PORT, :PORT, [IPV6]:PORT, unix:/PATH or fd:N: '8000'",
        "config.yaml:13: shutdown.drain_delay: not a duration such as 500ms, 30s, 1m30s: '1x'",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config.yaml: empty"),
        ("# only a comment\n", "config.yaml: empty"),
        ("---\n", "config.yaml: empty"),
        ("\n- a\n", "config.yaml:2: a mapping expected, not a list"),
        ("hello", "config.yaml:1: a mapping expected, not a single value"),
        ("pools:\n  - web", "config.yaml:1: pools: a mapping expected, not a list"),
        ("log: {}", "config.yaml: pools is missing"),
        ("pools: {}", "config.yaml:1: pools: must not be empty"),
        ("a: 1\nb: [", "config.yaml:2: not YAML: "),
        ("a: b: c", "config.yaml:1: not YAML: mapping values are not allowed in this context"),
        ("pools:\n\tweb: 1", "config.yaml:2: not YAML: "),
        (MINIMAL + "---\na: 1", "config.yaml:2: more than one YAML document"),
        (b"pools:\n  \xff: 1", "config.yaml:2: not UTF-8"),
        (b"pools:\n\n\0", "config.yaml:3: holds a NUL byte"),
        (b"pools: \x01", "config.yaml:1: not YAML: "),
        ("pools:\n  web: {command: [a]}\n  web: {command: [b]}", "config.yaml:3: duplicate key: web (first on line 2)"),
        ("pools: *x", "config.yaml:1: unknown anchor: x"),
        ("pools: &x {web: *x}", "config.yaml:1: anchor x contains itself"),
        ("pools: !python/object:os.system {}", "config.yaml:1: unknown tag: !python/object:os.system"),
        ("? [a]\n: 1", "config.yaml:1: a key must be a single word"),
        ("<<: 1", "config.yaml:1: << takes a mapping or a list of mappings"),
        ("[" * 60 + "]" * 60, "config.yaml:1: nested deeper than 50"),
        ("[" * 100_000, "config.yaml:1: "),
        (b"a: " + b"x" * 1024 * 1024, "config.yaml: larger than 1048576 bytes"),
    ],
)
def test_not_even_a_configuration(errors: Errors, text: str | bytes, message: str) -> None:
    (line,) = errors(text)
    assert line.startswith(message)


POOL_ERRORS = [
    ("command: []", "command: must not be empty"),
    ("command: ['']", "command[0]: the program is an empty string"),
    ('command: [a, "b\\0"]', "command[1]: holds a NUL byte: 'b\\x00'"),
    ("command: [a, [b]]", "command[1]: text expected, not a list"),
    ("command: {a: b}", "command: list of words expected, not a mapping"),
    ("workers: -1", "workers: out of range 1 to 10000: '-1'"),
    ("workers: 0", "workers: out of range 1 to 10000: '0'"),
    ("workers: 1000000000", "workers: out of range 1 to 10000: '1000000000'"),
    ("workers: 1.5", "workers: not a count: '1.5'"),
    ("workers: [1]", "workers: count 1 to 10000, or auto expected, not a list"),
    ("workers: {per_cpu: 2}", "workers: auto is missing"),
    ("workers: {auto: false}", "workers.auto: must be true: 'false'"),
    ("workers: {auto: true, min: 3, max: 2}", "workers.min: more than max: 3 > 2"),
    ("critical: yes", "critical: not true or false: 'yes'"),
    ("user: nobody-here", "user: no such user: 'nobody-here'"),
    ("group: nobody-here", "group: no such group: 'nobody-here'"),
    ("user: ''", "user: must not be empty: ''"),
    ("umask: 99", "umask: not an octal mode such as 022: '99'"),
    ("oom_score_adj: 1001", "oom_score_adj: out of range -1000 to 1000: '1001'"),
    ("rlimits: {nofile: lots}", "rlimits.nofile: not a size such as 512Mi, 1G: 'lots'"),
    ("rlimits: {files: 1}", "rlimits.files: unknown key (did you mean nofile?)"),
    ("rlimits: {nofile: {soft: 2, hard: 1}}", "rlimits.nofile: soft is more than hard"),
    ("rlimits: {nofile: {soft: unlimited, hard: 1}}", "rlimits.nofile: soft is more than hard"),
    ("rlimits: {nofile: {soft: 2}}", "rlimits.nofile: hard is missing"),
    ("stop: {signal: TURM}", "stop.signal: not a signal such as TERM, SIGINT, RTMIN+3, 15: 'TURM'"),
    ("stop: {timeout: 0s}", "stop.timeout: out of range 100ms to 8784h: '0s'"),
    ("stop: {timeout: 5s, quiesce: 5s}", "stop.quiesce: must be less than the timeout of 5s"),
    ("restart: {policy: sometimes}", "restart.policy: not one of always, on-failure, never: 'sometimes'"),
    ("restart: {backoff: {initial: 40s}}", "restart.backoff.initial: more than max, 30s"),
    ("env: {'A=B': 1}", "env.A=B: not a name of an environment variable"),
    ("env: {'': 1}", "env.: not a name of an environment variable"),
    ("env: {A: [1]}", "env.A: text expected, not a list"),
    ("env: {A: {file: /nonexistent/x}}", "env.A: cannot read /nonexistent/x: no such file or directory"),
    ("env: {A: {fil: /x}}", "env.A.fil: unknown key (did you mean file?)"),
    ("env_from: [/nonexistent/x]", "env_from[0]: cannot read /nonexistent/x: no such file or directory"),
    ("env_from: [/]", "env_from[0]: cannot read /: it is a directory"),
    ("env_from: [/dev/null]", "env_from[0]: cannot read /dev/null: not a regular file"),
    ("sockets: [a, a]", "sockets[0]: no such socket: 'a'"),
    ("after: [web]", "after: pools wait for each other: web -> web"),
    ("cwd: '${NOPE}'", "cwd: variable NOPE is not set (a default is written ${NOPE:-default})"),
    ("output: jsonl", "output: not one of inherit, json: 'jsonl'"),
    *(
        (f"{key}: x", f"{key}: not supported yet")
        for key in ("scaling", "recycle", "preload", "refork_after", "hooks", "metrics")
    ),
]


@pytest.mark.parametrize(("line", "message"), POOL_ERRORS)
def test_a_wrong_value_of_a_pool(errors: Errors, line: str, message: str) -> None:
    command = "" if line.startswith("command") else "    command: [a]\n"
    assert f"config.yaml:{4 if command else 3}: pools.web.{message}" in errors(f"pools:\n  web:\n{command}    {line}\n")


@pytest.mark.parametrize("key", ["python", "wsgi", "asgi"])
def test_other_ways_to_start_a_pool_are_not_supported_yet(errors: Errors, key: str) -> None:
    assert errors(f"pools: {{web: {{{key}: 'app:app'}}}}") == [f"config.yaml:1: pools.web.{key}: not supported yet"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("observer: {enabled: perhaps}", "observer.enabled: not true or false: 'perhaps'"),
        ("observer: {bind: 9180}", "observer.bind: not HOST:PORT, :PORT, [IPV6]:PORT, unix:/PATH or fd:N: '9180'"),
        ("observer: {bind: 'fd:5'}", "observer.bind: must be an address: 'fd:5'"),
        (
            "observer: {bind: ':8000'}\nsockets: {http: {bind: ':8000'}}",
            "observer.bind: clashes with socket http (:8000): ':8000'",
        ),
        ("control: {enabled: yes}", "control.enabled: not true or false: 'yes'"),
        ("control: {socket: none}", "control.socket: not auto or an absolute path: 'none'"),
        (f"control: {{socket: /{'x' * 107}}}", f"control.socket: longer than 107 bytes: '/{'x' * 59}...'"),
        ("reload: {watch: always}", "reload.watch: not true or false: 'always'"),
        ("shutdown: {termination_log: x}", "shutdown.termination_log: not an absolute path: 'x'"),
        ("log: {level: loud}", "log.level: not one of debug, info, warning, error: 'loud'"),
        ("loging: {}", "loging: unknown key (did you mean log?)"),
        ("init: [{name: a, command: [x]}, {name: a, command: [y]}]", "init[1].name: listed twice: 'a'"),
        ("init: [{command: [x]}]", "init[0]: name is missing"),
        ("init: {name: a}", "init: list of init commands expected, not a mapping"),
    ],
)
def test_a_wrong_value_at_the_top(errors: Errors, line: str, message: str) -> None:
    assert errors(f"{MINIMAL}{line}\n") == [f"config.yaml:2: {message}"]


@pytest.mark.parametrize("name", ["Web", "web_1", "-web", "a" * 64])
def test_a_wrong_name(errors: Errors, name: str) -> None:
    (line,) = errors(f"pools: {{{name}: {{command: [a]}}}}")
    assert "not a name (a-z, 0-9 and -, at most 63)" in line


def test_a_cycle_is_named(errors: Errors) -> None:
    text = "pools:\n  a: {command: [x], after: [b]}\n  b: {command: [x], after: [c]}\n  c: {command: [x], after: [b]}\n"
    assert errors(text) == ["config.yaml:3: pools.b.after: pools wait for each other: b -> c -> b"]


def test_anchors_and_merge_keys(config: Load) -> None:
    text = """
pools:
  a: &base
    command: [a]
    workers: 2
    stop: &stop {timeout: 5s}
  b:
    <<: *base
    workers: 3
  c: {<<: [{workers: 9}, *base], stop: *stop}
"""
    assert [(pool.workers, pool.stop.timeout) for pool in config(text).spec.pools] == [(2, 5.0), (3, 5.0), (9, 5.0)]


def test_an_alias_bomb_is_refused(errors: Errors) -> None:
    bomb = "pools:\n  p0: &p0 {command: &c [" + "x, " * 9000 + "x]}\n"
    bomb += "".join(f"  p{number}: *p0\n" for number in range(1, 900))
    assert errors(bomb) == ["config.yaml: too large: more than 50000 values with anchors followed"]
    merges = "a: &a {" + ", ".join(f"k{n}: 1" for n in range(900)) + "}\n" + "b: {<<: [" + "*a, " * 900 + "*a]}\n" * 1
    nested = merges + "".join(f"c{n}: {{<<: [" + "*a, " * 900 + "*a]}\n" for n in range(100))
    (line,) = errors(nested)
    assert "too large" in line


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"k{number}: 1\n" for number in range(100_000)),
        "pools:\n" + "".join(f"  p{number}:\n    comand: [a]\n" for number in range(33_000)),
        "- a\n" * 100_000,
        "pools:\n  web:\n    command: [a]\n    after:\n" + "    - x\n" * 100_000,
        "pools:\n" + "".join(f"  p{number}:\n    command: [a]\n    workers: no\n" for number in range(900)),
        "pools:\n  web: {command: [a]}\n" + "# c\n" * 99_998 + "x: 1\n",
    ],
    ids=["unknown keys", "pools", "list", "items", "mistakes", "comments"],
)
def test_a_long_file_is_answered_at_once(errors: Errors, text: str) -> None:
    """Not much later than the parser alone would make a tree of it, on whatever machine this is."""
    start = time.process_time()
    yaml.compose(text[: text.index("\n", len(text) // 10)], Loader=yaml.CSafeLoader)
    tenth = time.process_time()
    assert len(errors(text)) <= 101
    assert time.process_time() - tenth < 30 * (tenth - start) + 0.5


def test_more_errors_than_anyone_reads_are_counted(errors: Errors) -> None:
    lines = errors("".join(f"k{number}: 1\n" for number in range(500)) + MINIMAL)
    assert len(lines) == 101
    assert lines[-1] == "config.yaml: 400 more errors"


def test_the_parser_without_libyaml_says_the_same(
    config: Load, errors: Errors, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = "pools:\n  web: {command: [a], workers: 010}\n  b: &b {command: [NO]}\n  c: *b\nx: 1\n"
    good = "pools:\n  b: &b {command: [NO, 1.10]}\n  c: {<<: *b, workers: 2}\n"
    fast = config(good), errors(bad)
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert (config(good), errors(bad)) == fast
    assert errors("a: b: c") == ["config.yaml:1: not YAML: mapping values are not allowed here"]
    assert errors(b"a: \x01")[0].startswith("config.yaml:1: not YAML: special characters")
    assert "nested deeper" in errors("[" * 100_000)[0]


def refusal(path: str | Path) -> str:
    with pytest.raises(ConfigError) as raised:
        load(Request(str(path)), {})
    (line,) = raised.value.errors
    return line


def test_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x.yaml") == f"cannot load {tmp_path}/x.yaml: no such file or directory"
    assert refusal(tmp_path) == f"cannot load {tmp_path}: it is a directory"
    assert refusal("/dev/zero") == "cannot load /dev/zero: not a regular file"
    assert refusal("a\0b").endswith("not a file name")


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path / "fifo") == f"cannot load {tmp_path}/fifo: not a regular file"


def test_the_result_survives_its_way_to_the_master(config: Load) -> None:
    spec = config("pools: {web: {command: [a], workers: auto, env: {A: b}}}\nsockets: {s: {bind: ':80'}}").spec
    found = unpack(pack(spec))
    assert found == spec
    assert [type(part) for part in found] == [type(part) for part in spec]
    assert type(found.pools[0].restart.backoff) is Backoff


def test_the_file_is_identified(config: Load, tmp_path: Path) -> None:
    spec = config(MINIMAL).spec
    assert spec.path == str(tmp_path / "config.yaml")
    assert spec.sha256 == hashlib.sha256(MINIMAL.encode()).hexdigest()


SECRETIVE = """
pools:
  web:
    command: [app, "--token=${TOKEN}", "$${literal}"]
    env: {PASSWORD: hunter2, T: "${TOKEN}"}
    cwd: "${DIR}"
    lifecycle: {pre_stop: [leave, "${TOKEN}"]}
    liveness: {http: "http://localhost/${TOKEN}"}
"""
SECRETS = {"TOKEN": "s3cr3t", "DIR": "/s3cr3t"}


def test_nothing_secret_is_shown(config: Load) -> None:
    loaded = config(SECRETIVE, SECRETS)
    process = loaded.spec.pools[0].process
    assert process.argv == ("app", "--token=s3cr3t", "${literal}")
    assert process.cwd == "/s3cr3t"
    assert process.env == (("PASSWORD", "hunter2"), ("T", "s3cr3t"))
    assert process.display == "app '--token=${TOKEN}' '$${literal}'"
    shown = loaded.resolved["pools"]["web"]
    assert shown["command"] == ["app", "--token=${TOKEN}", "$${literal}"]
    assert shown["env"] == {"PASSWORD": "***", "T": "***"}
    assert shown["cwd"] == "${DIR}"
    assert loaded.spec.pools[0].lifecycle.pre_stop == Command(("leave", "s3cr3t"), "leave '${TOKEN}'")
    assert shown["lifecycle"] == {"pre_stop": ["leave", "${TOKEN}"]}
    probe = loaded.spec.pools[0].liveness
    assert probe is not None
    assert (probe.http, probe.display) == ("http://localhost/s3cr3t", "http://localhost/${TOKEN}")
    assert shown["liveness"]["http"] == "http://localhost/${TOKEN}"
    assert "s3cr3t" not in str(loaded.resolved)


@pytest.mark.parametrize(
    "line",
    [
        "workers: '${TOKEN}'",
        "user: '${TOKEN}'",
        "group: '${TOKEN}'",
        'env: {A: "${TOKEN}\\0"}',
        "env: {A: {file: '${TOKEN}'}}",
        "env_from: ['${TOKEN}']",
        "after: ['${TOKEN}', '${TOKEN}']",
        "sockets: ['${TOKEN}']",
        "stop: {signal: '${TOKEN}'}",
        "rlimits: {core: '${TOKEN}'}",
        "ready: {when: '${TOKEN}'}",
        "ready: {tcp: '${TOKEN}'}",
        "liveness: {http: '${TOKEN}'}",
        "liveness: {exec: ['', '${TOKEN}'], http: 'http://localhost/${TOKEN}'}",
        "lifecycle: {pre_stop: ['', '${TOKEN}']}",
        "heartbeat: {abort_signal: '${TOKEN}'}",
        "rollout: {max_surge: '${TOKEN}'}",
        "command: ['${TOKEN}', \"\\0${TOKEN}\"]",
        'env: {A: "hunter2\\0"}',
    ],
)
def test_no_secret_in_an_error(errors: Errors, line: str) -> None:
    command = "" if line.startswith("command") else "command: [a], "
    lines = errors(f"pools: {{web: {{{command}{line}}}}}\nsockets: {{s: {{bind: '${{TOKEN}}'}}}}", {"TOKEN": "hunter2"})
    assert len(lines) >= 2
    assert "hunter2" not in "\n".join(lines)


def test_a_value_too_large_for_the_kernel(errors: Errors, config: Load) -> None:
    fits = "x" * (131_071 - len("A="))
    assert config("pools: {web: {command: [a], env: {A: '" + fits + "'}}}")
    (line,) = errors("pools: {web: {command: [a], env: {A: '" + fits + "x'}}}")
    assert line == "config.yaml:1: pools.web.env.A: name and value are longer than 131071 bytes"
    (line,) = errors("pools: {web: {command: [a, '" + "y" * 131_072 + "']}}")
    assert line.startswith("config.yaml:1: pools.web.command[1]: longer than 131071 bytes")
    assert len(line) < 200


def test_the_resolved_configuration_loads_to_the_same(config: Load) -> None:
    text = """
pools:
  web: {command: [a, "0123", "${X:-y}"], workers: {auto: true, memory: 300Mi}, umask: 022, stop: {signal: 10}}
  b: {command: [b], rlimits: {core: 0}, after: [web], restart: {backoff: {jitter: 0.25}}}
  c: {command: [c], ready: {tcp: "[::1]:1$(ENTRYPOINT_SLOT)", period: 100ms}, workers: 2, min_ready_workers: 100%}
  d: {command: [d], ready: {when: notify}, liveness: {exec: [x]}, lifecycle: {post_start: [y]}, boot_timeout: 0}
sockets: {s: {bind: "unix:/tmp/s", mode: 0660}}
init: [{name: i, command: [b], timeout: 1500ms}]
signals: {HUP: restart, USR2: reload, RTMIN: ignore}
"""
    first = config(text)
    second = config(yaml.safe_dump(first.resolved, sort_keys=False))
    assert second.spec._replace(sha256="") == first.spec._replace(sha256="")
    assert second.resolved == first.resolved
