"""The exit code of the container, in init mode and with a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.docker.conftest import Run


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -KILL $$"], 128 + 9),
        (["sh", "-c", "kill -HUP $$"], 128 + 1),
        (["/no/such/program"], 127),
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
        (["/etc"], 126),
    ],
)
def test_init_mode_ends_like_its_worker(run: Run, command: list[str], code: int) -> None:
    box = run("--", *command)
    assert box.wait() == code, box.output
    assert ("entrypoint: cannot " in box.output) == (code in (126, 127))


def test_docker_kill_in_init_mode_is_forwarded_to_the_worker(run: Run) -> None:
    box = run("--", "sh", "-c", "trap 'echo got USR1; exit 9' USR1; echo up; while :; do sleep 0.1; done")
    box.wait_for("up\n")
    box.container.kill("USR1")
    assert box.wait() == 9
    assert "got USR1" in box.output


@pytest.mark.parametrize(
    ("code", "restart"),
    [
        (0, "{policy: never}"),
        (3, "{policy: never}"),
        (0, "{policy: on-failure}"),
        (4, "{policy: on-failure, give_up_after: 2, backoff: {initial: 10ms}}"),
        (5, "{policy: always, give_up_after: 2, backoff: {initial: 10ms}}"),
    ],
)
def test_a_pool_that_is_done_or_gives_up_ends_the_container(run: Run, code: int, restart: str) -> None:
    box = run(config=f"pools: {{job: {{command: [sh, -c, exit {code}], restart: {restart}}}}}")
    assert box.wait() == code, box.output


def test_a_command_that_cannot_be_executed_says_so(run: Run) -> None:
    box = run(config="pools: {web: {command: [no-such-program]}}")
    assert box.wait() == 127, box.output
    assert "no-such-program" in box.output


def test_a_wrong_config_is_78_with_every_error_and_its_line(run: Run) -> None:
    box = run(config="pools:\n  web:\n    comand: [sleep, '1']\n    workers: -1\n")
    assert box.wait() == 78, box.output
    lines = box.output.splitlines()
    assert all(line.startswith("entrypoint: cannot ") for line in lines)
    assert any("comand" in line and "3" in line and "did you mean" in line for line in lines)
    assert any("pools.web.workers" in line and "4" in line for line in lines)


def test_no_config_and_no_command(run: Run) -> None:
    box = run()
    assert box.wait() == 78, box.output
    assert box.output.startswith("entrypoint: cannot ")


def test_an_unknown_option_is_2(run: Run) -> None:
    box = run("--nonsense")
    assert box.wait() == 2, box.output


def test_a_stubborn_worker_is_137(run: Run) -> None:
    box = run(
        config="""
        pools:
          web:
            command: [sh, -c, "trap '' TERM; echo up; while :; do sleep 0.1; done"]
            stop: {timeout: 500ms}
        """
    )
    box.wait_for("up\n")
    code, seconds = box.stop()
    assert code == 137, box.output
    assert seconds < 5


def test_an_interrupted_job_is_143(run: Run) -> None:
    box = run(config="pools: {job: {command: [sh, -c, 'echo up; exec sleep 1000'], restart: {policy: never}}}")
    box.wait_for("up\n")
    assert box.stop()[0] == 143, box.output
