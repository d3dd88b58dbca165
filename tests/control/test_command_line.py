"""The command line itself: its help, and what becomes of a command whose output cannot be written."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from entrypoint.cli.arguments import parser
from entrypoint.cli.run import Options, parse
from entrypoint.commands import COMMANDS
from tests.control.conftest import BASE_ENV, Loop
from tests.control.test_commands import BEGUN
from tests.control.test_status import STATUS

if TYPE_CHECKING:
    from pathlib import Path

BAD_FD = "entrypoint: cannot write to standard output: Bad file descriptor\n"
NO_SPACE = "entrypoint: cannot write to standard output: No space left on device\n"
EVERY_COMMAND = pytest.mark.parametrize("name", COMMANDS)


def ran(entrypoint: str, words: str, redirect: str = "") -> tuple[int, str, str]:
    """Exit code, standard output and standard error, some of it redirected by a shell."""
    done = subprocess.run(
        ["sh", "-c", f"exec {entrypoint} {words} {redirect}"],
        env=BASE_ENV, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def configs(folder: Path) -> Path:
    """A folder with a good.yaml and a bad.yaml."""
    (folder / "good.yaml").write_text("pools: {web: {command: [a]}}")
    (folder / "bad.yaml").write_text("pools: {web: {comand: [a]}}")
    return folder


# -- help ----------------------------------------------------------------------------------------------------


def test_without_a_command_it_says_what_it_is(entrypoint: str) -> None:
    code, out, err = ran(entrypoint, "")
    assert (code, out) == (2, "")
    assert err.startswith("entrypoint: no command\n`entrypoint` runs as process 1 of a container")
    assert len(err.splitlines()) < 12
    for example in ("run -c config.yaml", "run -- sleep 60", "help"):
        assert f" entrypoint {example} " in err


def test_a_command_that_does_not_exist(entrypoint: str) -> None:
    said = "no such command; `entrypoint help` lists them\n"
    assert ran(entrypoint, "sttaus") == (2, "", f"entrypoint: cannot run 'sttaus': {said}")
    assert ran(entrypoint, "monitors --help")[0] == 2
    assert ran(entrypoint, "help sttaus")[0] == 2


@pytest.mark.parametrize("word", ["help", "--help", "-h"])
def test_every_command_is_listed_with_its_arguments_and_a_line(entrypoint: str, word: str) -> None:
    code, out, err = ran(entrypoint, word)
    assert (code, err) == (0, "")
    for name, command in COMMANDS.items():
        assert f"  {f'entrypoint {name} {command.arguments}'.rstrip()}\n      {command.help}\n" in out
    assert "monitor" not in out
    assert max(len(line) for line in out.splitlines()) <= 100


@EVERY_COMMAND
def test_its_help_tells_what_every_option_does_with_its_default_and_an_example(entrypoint: str, name: str) -> None:
    code, out, err = ran(entrypoint, f"{name} --help")
    assert (code, err) == (0, "")
    assert out == ran(entrypoint, f"{name} -h")[1] == ran(entrypoint, f"help {name}")[1]
    flat = re.sub(r"\s+", " ", out)
    for option in COMMANDS[name].options:
        assert option.help in flat
        assert "(default: " in option.help or not option.flags or option.flags == ["--all"], option.help
        assert all(flag in flat for flag in option.flags)
    for example in COMMANDS[name].examples:
        assert f"  {example}\n" in out
        assert example.split()[:2] == ["entrypoint", name]


@EVERY_COMMAND
def test_its_usage_and_its_examples_are_understood(name: str) -> None:
    command = COMMANDS[name]
    told = set(re.findall(r"--?[a-z][a-z-]*", command.arguments)) - {"--"}
    known = {flag for option in command.options for flag in option.flags}
    assert told <= known
    assert known - told <= {"--socket", "--config"}, "the usage leaves out an option"
    for example in command.examples:
        words = example.partition(" > ")[0].split()[2:]
        if name == "run":
            parse(words)  # raises UsageError
        else:
            parser(name).parse_args(words)  # exits with 2


def test_what_the_help_of_run_tells_is_what_run_takes() -> None:
    values = {"FILE": "c.yaml", "PATH=VALUE": "a.b=1", "N": "2"}
    for option in COMMANDS["run"].options:
        for flag in option.flags:
            options = parse([flag, *([values[option.value]] if option.value else [])])
            assert vars(options) != vars(Options()), flag


def test_help_after_the_command_of_run_is_the_commands(entrypoint: str) -> None:
    assert ran(entrypoint, "run --init printf %s --help") == (0, "--help", "")
    assert ran(entrypoint, "run --init -- printf %s -h") == (0, "-h", "")
    assert ran(entrypoint, "run --init --help true")[1].startswith("usage: entrypoint run ")


# -- an output that cannot be written ------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["check -c good.yaml", "check --json -c good.yaml", "schema", "version", "help"])
@pytest.mark.parametrize(("redirect", "said"), [(">&-", BAD_FD), ("<&- >&-", BAD_FD), (">/dev/full", NO_SPACE)])
def test_an_output_that_was_asked_for(configs: Path, entrypoint: str, words: str, redirect: str, said: str) -> None:
    words = words.replace("-c ", f"-c {configs}/")
    assert ran(entrypoint, words, redirect) == (1, "", said)


@EVERY_COMMAND
def test_a_help_that_cannot_be_written(entrypoint: str, name: str) -> None:
    assert ran(entrypoint, f"{name} --help", ">&-") == (1, "", BAD_FD)
    assert ran(entrypoint, f"{name} --help", ">/dev/full") == (1, "", NO_SPACE)


@pytest.mark.parametrize("redirect", [">&-", ">/dev/full", "2>&-", "2>/dev/full", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("check -c bad.yaml", 78),
        ("check --json -c bad.yaml", 78),
        ("run -c bad.yaml", 78),
        ("run --nope", 2),
        ("status --nope", 2),
        ("status --socket /no", 1),
        ("probe live --socket /no", 1),
        ("nonsense", 2),
        ("", 2),
    ],
)
def test_a_failure_keeps_its_code(configs: Path, entrypoint: str, redirect: str, words: str, code: int) -> None:
    found, out, err = ran(entrypoint, words.replace("-c ", f"-c {configs}/"), redirect)
    assert found == code
    assert not out or "--json" in words
    assert bool(err) == ("2>" not in redirect)
    assert "Traceback" not in err


def test_errors_do_not_take_the_place_of_the_output(configs: Path, entrypoint: str) -> None:
    (configs / "warned.yaml").write_text("pools: {web: {command: [a]}}\nsockets: {unused: {bind: ':80'}}")
    code, out, err = ran(entrypoint, f"check -c {configs}/warned.yaml")
    assert (code, err) == (0, "entrypoint: warning: socket unused is used by no pool\n")
    for redirect in ("2>&-", "2>/dev/full"):
        assert ran(entrypoint, f"check -c {configs}/warned.yaml", redirect) == (0, out, "")


@pytest.mark.parametrize(("redirect", "said"), [(">&-", BAD_FD), (">/dev/full", NO_SPACE)])
@pytest.mark.parametrize("words", ["", "--json", "--watch", "--watch --json"])
def test_a_status_that_cannot_be_written(loop: Loop, entrypoint: str, words: str, redirect: str, said: str) -> None:
    loop.replies["status"] = {"ok": True, "status": STATUS}
    command = f"exec {entrypoint} status {words} --socket {loop.control.path} {redirect}"
    running = loop.run("sh", "-c", command)
    assert (running.code, running.err) == (1, said)


@pytest.mark.parametrize(("redirect", "said"), [(">&-", BAD_FD), (">/dev/full", NO_SPACE), ("2>&-", "")])
@pytest.mark.parametrize("words", ["reload", "restart --all", "reload --wait"])
def test_an_order_that_was_carried_out_is_no_failure(
    loop: Loop, entrypoint: str, words: str, redirect: str, said: str
) -> None:
    def begin(asker: int, request: dict[str, object]) -> None:
        loop.control.answer(asker, {"ok": True, "rollouts": BEGUN}, last=not request["wait"])
        if request["wait"]:
            results = [{**begun, "result": "completed", "reason": ""} for begun in BEGUN]
            loop.control.answer(asker, {"done": True, "results": results})

    loop.handle = begin
    running = loop.run("sh", "-c", f"exec {entrypoint} {words} --socket {loop.control.path} {redirect}")
    assert (running.code, running.err) == (0, said)


@pytest.mark.parametrize("words", ["help", "run --help", "schema"])
def test_a_reader_that_leaves_a_text_is_no_error(entrypoint: str, words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([entrypoint, *words.split()], stdout=writing, stderr=subprocess.PIPE, timeout=30, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_a_reader_that_leaves_does_not_end_the_wait_for_a_rollout(loop: Loop, entrypoint: str) -> None:
    reading, writing = os.pipe()
    loop.handle = lambda asker, _: loop.control.answer(asker, {"ok": True, "rollouts": BEGUN}, last=False)
    running = loop.start(entrypoint, "reload", "--wait", "--socket", loop.control.path, stdout=writing)
    os.close(writing)
    os.set_blocking(reading, False)
    loop.until(lambda: loop.requests)
    os.close(reading)
    results = [{**begun, "result": "failed", "reason": ""} for begun in BEGUN]
    loop.control.answer(loop.requests[0][0], {"done": True, "results": results})
    assert running.wait() == 1
    assert running.err.count("failed\n") == 2
