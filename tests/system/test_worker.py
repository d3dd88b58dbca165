"""What a worker finds: environment, identity, limits, descriptors, signals."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Master, Start

# Tells everything that can be seen from inside, then stays. Only the interpreter's own work comes before.
SHOW = """
import json, os, resource, sys
status = dict(l.split(":", 1) for l in open("/proc/self/status").read().splitlines())
fds = {}
for name in os.listdir("/proc/self/fd"):
    try:
        fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        pass
mask = os.umask(0)
print("SHOW " + json.dumps({
    "pid": os.getpid(), "pgid": os.getpgid(0), "ppid": os.getppid(), "sid": os.getsid(0),
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
    "umask": mask, "nice": os.nice(0), "cwd": os.getcwd(), "argv": sys.argv[1:],
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0], "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "oom": int(open("/proc/self/oom_score_adj").read()),
    "masks": {k: status[k].strip() for k in ("SigBlk", "SigIgn", "SigCgt")},
    "env": dict(os.environ), "fds": fds,
}), flush=True)
os.execvp("sleep", ["sleep", "1000"])
"""


@pytest.fixture
def show(script: Callable[[str, str], str]) -> str:
    return script("show.py", SHOW)


def shown(master: Master) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(master.wait_for_line(r"^SHOW (.*)")[1])
    return found


def test_the_surroundings_of_a_worker(start: Start, show: str) -> None:
    leaked, other_end = os.pipe()
    with socket.socket() as leaked_socket:
        master = start(
            f"pools: {{web: {{command: [/usr/bin/python3, -S, {show}, $(ENTRYPOINT_WORKER), $$(HOME)]}}}}",
            pass_fds=(leaked, other_end, leaked_socket.fileno()),
            env={"NOTIFY_SOCKET": "@other", "LISTEN_FDS": "1", "LISTEN_PID": "1", "WATCHDOG_USEC": "1"},
        )
        worker = shown(master)
    os.close(leaked)
    os.close(other_end)
    started = master.wait_for("worker_started")
    assert worker["pid"] == worker["pgid"] == started["pid"]
    assert worker["ppid"] == master.pid
    assert worker["argv"] == ["web/0", "$(HOME)"]
    env = worker["env"]
    assert {k: env[k] for k in env if k.startswith("ENTRYPOINT_")} == {
        "ENTRYPOINT_POOL": "web",
        "ENTRYPOINT_SLOT": "0",
        "ENTRYPOINT_WORKER": "web/0",
        "ENTRYPOINT_GENERATION": "1",
    }
    assert env["NOTIFY_SOCKET"].startswith("@entrypoint/")
    for foreign in ("LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC"):
        assert foreign not in env
    assert worker["fds"].pop("0") == "/dev/null"
    assert {fd for fd in worker["fds"] if not worker["fds"][fd].startswith("/proc/")} == {"1", "2"}
    assert int(worker["masks"]["SigBlk"], 16) == 0
    # The interpreter itself ignores PIPE and XFSZ; the next test asks a program that does not.
    assert int(worker["masks"]["SigIgn"], 16) & ~(1 << 12 | 1 << 24 | LIBC_SIGNALS) == 0
    assert worker["core"] == 0
    assert worker["oom"] == min(1000, int(Path("/proc/self/oom_score_adj").read_text()) + 100)
    assert master.stop()[0] == 0


# 32 and 33 are the C library's own: its posix_spawn (make uses it) leaves them ignored, and nobody can set them.
LIBC_SIGNALS = 0b11 << 31
IGNORED = (signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD, signal.SIGTERM, signal.SIGWINCH, signal.SIGRTMIN + 3)


@pytest.mark.parametrize("pid1", [False, True])
@pytest.mark.parametrize("init", [False, True])
def test_signals_have_their_defaults_whatever_the_master_inherited(start: Start, *, init: bool, pid1: bool) -> None:
    ignore = f"import os, signal, sys\nfor n in {[int(n) for n in IGNORED]}: signal.signal(n, signal.SIG_IGN)\n"
    ignore += "signal.pthread_sigmask(0, {10, 12, 14}); os.execvp(sys.argv[1], sys.argv[1:])"
    words = ["sh", "-c", "echo $$; exec sleep 1000"]
    wrap = ("python3", "-c", ignore)
    if init:
        master = start(args=["--init", *words], wrap=wrap, pid1=pid1)
    else:
        master = start(f"pools: {{web: {{command: {words}}}}}", wrap=wrap, pid1=pid1)
    master.wait_for_line(r"\d+")
    worker = master.worker("sleep")  # the first child may still be the one that has read the configuration
    assert int(master.status_of(worker, "SigBlk"), 16) == 0
    assert int(master.status_of(worker, "SigIgn"), 16) & ~LIBC_SIGNALS == 0
    assert int(master.status_of(worker, "SigCgt"), 16) == 0
    assert master.stop()[0] == (143 if init else 0)


def test_identity_limits_and_place(start: Start, show: str, tmp_path: Path) -> None:
    master = start(
        f"""
        pools:
          web:
            command: [/usr/bin/python3, -S, {show}]
            user: nobody
            group: daemon
            umask: "027"
            nice: 3
            rlimits: {{nofile: 123, core: 0}}
            oom_score_adj: 321
            cwd: /usr
        """
    )
    worker = shown(master)
    assert worker["ids"][:2] == [[65534] * 3, [1] * 3]
    assert 0 not in worker["ids"][2]
    assert worker["umask"] == 0o027
    assert worker["nice"] == os.nice(0) + 3
    assert worker["nofile"] == [123, 123]
    assert worker["oom"] == 321
    assert worker["cwd"] == "/usr"
    assert worker["env"]["USER"] == "nobody"
    assert worker["env"]["HOME"] == "/nonexistent"
    pid = master.wait_for("worker_started")["pid"]
    assert master.status_of(pid, "PPid") == str(master.pid)
    assert master.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    master.until(lambda: not master.alive(pid))  # changing the user must not have undone it


def test_environment_files_are_read_at_each_spawn(start: Start, show: str, tmp_path: Path) -> None:
    secret, env_file = tmp_path / "secret", tmp_path / "app.env"
    secret.write_text("first\n")
    env_file.write_text("FROM_FILE=1\nOVERRIDDEN=file\nexport QUOTED='a b'\n")
    config = f"""
        pools:
          web:
            command: [sh, -c, 'echo "$DB_PASSWORD|$FROM_FILE|$OVERRIDDEN|$QUOTED|$COMPOSED|$EXTRA"; exec sleep 1000']
            restart: {{min_uptime: 0s}}
            env_from: [{env_file}]
            env:
              DB_PASSWORD: {{file: {secret}}}
              OVERRIDDEN: here
              COMPOSED: $(FROM_FILE)-$(ENTRYPOINT_SLOT)-$(MISSING)-$$(FROM_FILE)
        """
    master = start(config, env={"EXTRA": "inherited", "FROM_FILE": "outer"})
    master.wait_for_line(r"^first\|1\|here\|a b\|1-0-\$\(MISSING\)-\$\(FROM_FILE\)\|inherited$")
    secret.write_text("second")
    pid = master.wait_for("worker_started")["pid"]
    master.wait_for_exec(pid, "sleep")
    os.kill(pid, signal.SIGKILL)
    master.wait_for_line(r"^second\|1\|here")
    assert master.stop()[0] == 0


def test_a_secret_that_is_gone_is_a_failed_boot(start: Start, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    config = f"""
        pools:
          web:
            command: [sh, -c, 'echo "got $S"; exec sleep 1000']
            env: {{S: {{file: {secret}}}}}
            restart: {{backoff: {{initial: 20ms, jitter: 0}}}}
        """
    master = start(config)
    master.wait_for_line("got first")
    secret.rename(tmp_path / "away")
    os.kill(master.wait_for("worker_started")["pid"], signal.SIGKILL)
    failed = master.wait_for("worker_exited", code=126)
    assert failed["error"].endswith(f"cannot read {secret}: no such file or directory")
    (tmp_path / "away").rename(secret)
    master.wait_for("worker_started")
    assert master.stop()[0] == 0


def test_sitecustomize_with_a_thread_reaches_the_worker_and_not_the_master(start: Start, tmp_path: Path) -> None:
    injected = tmp_path / "injected"
    injected.mkdir()
    (injected / "sitecustomize.py").write_text(
        "import os, threading\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "open(os.environ['TRACE'], 'a').write(f'{os.getpid()}\\n')\n"
        "import atexit\n"
    )
    trace = tmp_path / "trace"
    master = start(
        "pools: {web: {command: [python3, -c, 'import os, threading, time; "
        'print("threads", threading.active_count(), os.environ["PYTHONPATH"], flush=True); time.sleep(1000)\']}}',
        env={"PYTHONPATH": str(injected), "TRACE": str(trace), "PYTHONSTARTUP": "/x", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    master.wait_for_line(f"threads 2 {injected}")
    worker = master.wait_for("worker_started")["pid"]
    assert str(worker) in trace.read_text().split()
    assert master.status_of(master.pid, "Threads") == "1"
    assert str(injected) not in Path(f"/proc/{master.pid}/maps").read_text()
    assert master.stop()[0] == 0
    # Nor is the flag of isolation passed on to the workers: they found the variables unchanged.


def test_a_random_uid_without_a_passwd_entry(start: Start, entrypoint: str, show: str) -> None:
    master = start(
        f"pools: {{web: {{command: [/usr/bin/python3, -S, {show}]}}}}",
        wrap=("setpriv", "--reuid", "1234567", "--regid", "7654321", "--clear-groups"),
        cwd="/",
    )
    assert shown(master)["ids"] == [[1234567] * 3, [7654321] * 3, []]
    assert master.stop()[0] == 0


def test_a_user_without_the_right_to_change_it(start: Start) -> None:
    master = start(
        "pools: {web: {command: ['true'], user: daemon}}",
        wrap=("setpriv", "--reuid", "1234567", "--regid", "7654321", "--clear-groups"),
        cwd="/",
    )
    assert master.wait() == 78
    assert "cannot" in master.errors
    assert "user" in master.errors


def test_resource_limits_that_cannot_be_set(start: Start) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    master = start(
        "pools: {web: {command: ['true'], rlimits: {nofile: 200}}}",
        wrap=("setpriv", "--reuid", "1234567", "--regid", "7654321", "--clear-groups"),
        preexec_fn=few,
        cwd="/",
    )
    assert master.wait() in {78, 126}
    assert "cannot set" in master.story()


def test_a_resource_limit_that_cannot_be_set_is_named(start: Start) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    for value, said in (("unlimited", "unlimited"), ("{soft: 150, hard: 200}", "150 to 200")):
        master = start(
            f"pools: {{web: {{command: ['true'], rlimits: {{nofile: {value}}}}}}}",
            wrap=("setpriv", "--reuid", "1234567", "--regid", "7654321", "--clear-groups"),
            preexec_fn=few,
            cwd="/",
        )
        assert master.wait() == 126
        reason = "not allowed to raise maximum limit"
        assert master.wait_for("worker_exited")["error"] == f"cannot set rlimits.nofile to {said}: {reason}"


def test_an_environment_that_is_too_long_is_measured(start: Start, tmp_path: Path) -> None:
    """Neither what is inherited nor what is added is too long by itself."""
    more = tmp_path / "more.env"
    more.write_text("".join(f"A{number}={'x' * 100_000}\n" for number in range(9)))
    inherited = {f"B{number}": "x" * 100_000 for number in range(15)}
    master = start(f"pools: {{web: {{command: [sleep, '1000'], env_from: [{more}]}}}}", env=inherited)
    assert master.wait() == 126
    error = master.wait_for("worker_exited")["error"]
    match = re.fullmatch(
        r"cannot execute sleep 1000: Argument list too long: "
        r"its environment has (\d+) bytes, its command (\d+), and (\d+) may be",
        error,
    )
    assert match
    environment, command, most = map(int, match.groups())
    assert environment + command > most
    assert 2_400_000 < environment < 2_500_000
    assert command == len("sleep") + len("1000") + 2 + 2 * 8


@pytest.mark.parametrize("where", ["env", "command"])
def test_a_string_that_is_too_long_is_named(start: Start, where: str) -> None:
    """No value in the configuration can be as long, but what is made of two of them."""
    twice = "$(HALF)$(HALF)"
    command, env = (f"[echo, {twice}]", "") if where == "command" else ("[echo]", f", LONG: {twice}")
    master = start(f"pools: {{web: {{command: {command}, env: {{HALF: {'x' * 70_000}{env}}}}}}}")
    assert master.wait() == 126
    what = "argument 1 has 140000" if where == "command" else "variable LONG has 140005"
    error = master.wait_for("worker_exited")["error"]
    assert error.endswith(f": Argument list too long: {what} bytes, and 131071 may be")
    assert "xx" not in error


@pytest.mark.parametrize("found_by", ["path", "PATH"])
def test_a_command_that_is_a_dangling_link(start: Start, tmp_path: Path, found_by: str) -> None:
    (tmp_path / "app").symlink_to(tmp_path / "releases/5/app")
    command = "app" if found_by == "PATH" else f"{tmp_path}/app"
    master = start(f"pools: {{web: {{command: [{command}], env: {{PATH: '{tmp_path}:/usr/bin'}}}}}}")
    assert master.wait() == 127
    target = f"{tmp_path}/releases/5/app"
    assert master.wait_for("worker_exited")["error"] == (
        f"cannot execute {command}: it is a link to {target}, which is missing"
    )


def test_a_working_directory_that_is_missing(start: Start) -> None:
    master = start("pools: {web: {command: ['true'], cwd: /no/such/place}}")
    assert master.wait() == 126
    failed = master.wait_for("worker_exited")
    assert failed["error"] == "cannot change to the directory of cwd: No such file or directory"


def test_closed_standard_descriptors(start: Start, tmp_path: Path) -> None:
    """Started with 0, 1 and 2 closed, the master and its workers must not find other files there."""
    out = tmp_path / "out"
    config = f"pools: {{web: {{command: [sh, -c, 'ls -l /proc/self/fd >{out}; exec sleep 1000'], workers: 1}}}}"
    master = start(config, wrap=("sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh"), stdout=subprocess.DEVNULL)
    master.until(lambda: out.exists() and "total" in out.read_text() and "2 -> /dev/null" in out.read_text())
    assert "0 -> /dev/null" in out.read_text()
    assert master.stop()[0] == 0
