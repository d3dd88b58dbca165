"""$(NAME) and ${NAME}."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from entrypoint.config.environment import Identity, worker_environment
from entrypoint.config.expand import expand, literal, needs_expansion
from entrypoint.config.interpolate import interpolate
from entrypoint.config.spec import Process

if TYPE_CHECKING:
    from tests.unit.config.conftest import Load

ENV = {"A": "1", "B": "$(A)", "E": "", "a.b": "dot"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$(B)", "$(A)"),  # one pass
        ("$(E)", ""),
        ("$(a.b)", "dot"),
        ("$(MISSING)", "$(MISSING)"),
        ("$(date +%s)", "$(date +%s)"),
        ("$$(A)", "$(A)"),
        ("$$(A)$(A)", "$(A)1"),
        ("$$$(A)", "$$1"),
        ("$$$$(A)", "$$$(A)"),
        ("echo $$", "echo $$"),
        ("$$ $(A)", "$$ 1"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("$(A)$", "1$"),
        ("$A ${A}", "$A ${A}"),
        ("$()", "$()"),
        ("", ""),
    ],
)
def test_expand(text: str, expanded: str) -> None:
    assert expand(text, ENV) == expanded


@given(st.text("$()A{ ", max_size=20))
def test_expand_without_names_only_undoes_escapes(text: str) -> None:
    assume("$$$" not in text)  # which of three is the escape is tested above
    assume(not re.search(r"(?<!\$)\$\(", text))  # a reference swallows what is in it
    assert expand(text, {}) == text.replace("$$(", "$(")


@given(st.text(max_size=20).filter(lambda text: "$" not in text and "\0" not in text), st.text(max_size=10))
def test_expand_keeps_what_surrounds_a_name(around: str, value: str) -> None:
    assert expand(f"{around}$(A){around}", {"A": value}) == f"{around}{value}{around}"


def test_expand_imports_nothing_heavy() -> None:
    code = "import sys; old = set(sys.modules); import entrypoint.config.expand; print(*set(sys.modules) - old)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"re", "yaml", "typing", "enum"} & set(loaded)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "1"),
        ("${A}${A}", "11"),
        ("${B}", "$(A)"),
        ("${E}", ""),
        ("${E:-x}", "x"),
        ("${M:-x y}", "x y"),
        ("${M:-}", ""),
        ("$${A}", "${A}"),
        ("$(A)", "$(A)"),
        ("$A", "$A"),
        ("$$", "$$"),
    ],
)
def test_interpolate(text: str, value: str) -> None:
    assert interpolate(text, ENV) == value


@pytest.mark.parametrize("text", ["${M}", "${", "${}", "${1}", "${a.b}", "${A-x}", "${A:?x}", "x${A"])
def test_interpolate_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"not set|not a \$\{NAME\}"):
        interpolate(text, ENV)


@given(st.text("$()A{ ", max_size=20), st.text("$()A{ ", max_size=6).filter(lambda text: "(" not in text))
def test_what_is_literal_comes_back_as_it_was(text: str, around: str) -> None:
    assert expand(literal(text), ENV) == text
    assert expand(f"{around}{literal(text)}$(A)", ENV) == f"{around}{text}1" or around.endswith("$")
    assert needs_expansion(literal(text)) == ("$" in text)


SECRETS = ["a$(HOME)b$$(c", "a${b", "x${NOPE}y", "$$$(HOME)", "$(HOME", "$", "100%$$", "{a: $(HOME)}"]


def resolved(process: Process) -> tuple[tuple[str, ...], dict[str, str]]:
    """A worker's command and environment."""
    env = worker_environment({"HOME": "/root"}, process, Identity("web", 2, 1))
    return tuple(expand(word, env) for word in process.argv), env


@pytest.mark.parametrize("secret", SECRETS)
def test_a_value_of_the_environment_is_not_searched_for_references(config: Load, secret: str) -> None:
    text = """
    pools:
      web:
        command: [run, "--token=${SECRET}@$(ENTRYPOINT_SLOT)", "${NOT_SET:-$(ENTRYPOINT_SLOT)}"]
        env: {PW: "${SECRET}", URL: "db://${SECRET}/$(ENTRYPOINT_WORKER)", COPY: "$(PW)"}
        lifecycle: {pre_stop: [leave, "${SECRET}"]}
        liveness: {exec: [check, "${SECRET}"]}
    """
    spec = config(text, {"SECRET": secret}, sets=("pools.web.env.SET=${SECRET}",)).spec
    pool = spec.pools[0]
    argv, env = resolved(pool.process)
    assert argv == ("run", f"--token={secret}@2", "2")
    assert (env["PW"], env["COPY"], env["SET"]) == (secret, secret, secret)
    assert env["URL"] == f"db://{secret}/web/2"
    assert pool.lifecycle.pre_stop is not None
    assert expand(pool.lifecycle.pre_stop.argv[1], env) == secret
    assert pool.liveness is not None
    assert pool.liveness.exec is not None
    assert expand(pool.liveness.exec.argv[1], env) == secret


@pytest.mark.parametrize("secret", SECRETS)
def test_a_variable_that_sets_one_of_a_worker_is_a_value(config: Load, secret: str) -> None:
    text = "pools: {web: {command: [run]}}"
    process = config(text, {"ENTRYPOINT_POOLS__WEB__ENV__PW": secret}).spec.pools[0].process
    assert resolved(process)[1]["PW"] == secret


def test_what_is_a_template(config: Load) -> None:
    """The file and --set in both languages; of what else there is, commands and probes in that of the worker."""
    text = "pools: {web: {command: [run], liveness: {tcp: '127.0.0.1:1$(ENTRYPOINT_SLOT)'}}}"
    environ = {
        "ONE": "1",
        "ENTRYPOINT_POOLS__WEB__COMMAND": "[run, '${ONE}', $(ENTRYPOINT_SLOT)]",
        "ENTRYPOINT_POOLS__WEB__LIVENESS__TCP": "127.0.0.1:2$(ENTRYPOINT_SLOT)",
    }
    pool = config(text, environ, sets=("pools.web.env.A=${ONE}$(ENTRYPOINT_SLOT)",)).spec.pools[0]
    argv, env = resolved(pool.process)
    assert argv == ("run", "${ONE}", "2")
    assert env["A"] == "12"
    assert pool.liveness is not None
    assert expand(pool.liveness.tcp, env) == "127.0.0.1:22"
    argv, _ = resolved(config(text, environ, command=("run", "${ONE}", "$(ENTRYPOINT_SLOT)")).spec.pools[0].process)
    assert argv == ("run", "${ONE}", "2")


@pytest.mark.parametrize(("cwd", "found"), [("/srv/current", "/srv/current"), ("/a/./b/", "/a/b"), ("", "/elsewhere")])
def test_pwd_is_the_working_directory(cwd: str, found: str) -> None:
    process = Process(("run",), "run", cwd=cwd)
    assert worker_environment({"PWD": "/elsewhere"}, process, Identity("web", 0, 1))["PWD"] == found
    relative = Process(("run",), "run", cwd="below")
    assert "PWD" not in worker_environment({"PWD": "/elsewhere"}, relative, Identity("web", 0, 1))
    process = process._replace(env=(("PWD", "/own"),))
    assert worker_environment({}, process, Identity("web", 0, 1))["PWD"] == "/own"
