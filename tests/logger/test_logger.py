"""The logger as a process: nothing is lost, and nobody waits who need not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from entrypoint.logger.lines import MAX_LINE
from tests.logger.harness import TIMEOUT, messages, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.logger.harness import Logger, Worker

    Start = Callable[..., Logger]

BOTH = pytest.mark.parametrize("ctypes", [True, False], ids=["copying", "reading"])


def say_in_background(worker: Worker, data: bytes) -> threading.Thread:
    thread = threading.Thread(target=worker.say, args=(data,), daemon=True)
    thread.start()
    return thread


@contextmanager
def running(*argv: str, stdout: int) -> Iterator[None]:
    process = subprocess.Popen(argv, stdout=stdout)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@BOTH
def test_parts_of_a_line_are_joined(start: Start, *, ctypes: bool) -> None:
    logger = start(ctypes=ctypes)
    worker = logger.worker()
    for byte in b"hello\nworld\n":
        worker.say(bytes([byte]))
    worker.say(b"! no end")
    assert messages(logger.wait_for(2)) == ["hello", "world"]
    worker.end()
    assert messages(logger.wait_for(3)) == ["hello", "world", "! no end"]


@BOTH
def test_both_streams_are_told_apart(start: Start, *, ctypes: bool) -> None:
    logger = start(ctypes=ctypes)
    worker = logger.worker()
    worker.say(b"to stdout\n")
    worker.say(b"to stderr\n", worker.error)
    lines = logger.wait_for(2)
    assert messages(lines, "stdout") == ["to stdout"]
    assert messages(lines, "stderr") == ["to stderr"]
    assert {(line["pool"], line["slot"], line["pid"]) for line in lines} == {("web", 0, 1001)}


@BOTH
def test_a_writer_that_waits_behind_the_beginning_of_a_line_is_noticed(start: Start, *, ctypes: bool) -> None:
    """It wakes nobody: to the kernel, the pipe was readable all the time."""
    logger = start(ctypes=ctypes)
    worker = logger.worker()
    worker.say(b"begin")
    worker.say(b"so far\n", worker.error)
    logger.wait_for(1)  # it has looked at the pipe
    data = b"".join(b"%07d" % n + b"x" * 100 + b"\n" for n in range(20000))
    thread = say_in_background(worker, data)  # 2 MB in one write
    lines = messages(logger.wait_for(20001))
    thread.join(TIMEOUT)
    assert [line[-107:-100] for line in lines] == [f"{n:07d}" for n in range(20000)]


@BOTH
def test_a_line_too_long_for_a_pipe_is_cut_and_nothing_of_it_is_lost(start: Start, *, ctypes: bool) -> None:
    logger = start(ctypes=ctypes)
    worker = logger.worker()
    text = "".join(f"{n:08d}" for n in range(50000))  # 400 kB
    say_in_background(worker, f"before\n{text}\nafter\n".encode())
    lines = logger.wait_for(2 + -(-len(text) // MAX_LINE))
    assert "".join(messages(lines)) == f"before{text}after"
    cut = [line for line in lines if line.get("truncated")]
    assert [len(line["message"]) for line in cut] == [MAX_LINE] * (len(text) // MAX_LINE)


@BOTH
def test_a_line_of_64_kib_is_whole_however_it_is_written(start: Start, *, ctypes: bool) -> None:
    logger = start(ctypes=ctypes)
    worker = logger.worker()
    for piece in (65536, 4095, 2049):
        text = "x" * MAX_LINE

        def write(piece: int = piece, data: bytes = text.encode() + b"\n") -> None:
            for begin in range(0, len(data), piece):
                worker.say(data[begin : begin + piece])

        threading.Thread(target=write, daemon=True).start()
        lines = logger.wait_for(1 + (65536, 4095, 2049).index(piece))
        assert lines[-1]["message"] == text


def test_a_pipe_that_is_full_of_tiny_pieces_holds_nobody_up(logger: Logger) -> None:
    """In packet mode every write takes a page of its own, so that a few bytes fill a pipe."""
    worker = logger.worker(os.O_DIRECT)

    def write() -> None:
        for byte in b"x" * 300 + b"\n":
            os.write(worker.out, bytes([byte]))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    assert messages(logger.wait_for(1)) == ["x" * 300]
    thread.join(TIMEOUT)


@BOTH
def test_lines_of_two_workers_stay_whole(start: Start, *, ctypes: bool) -> None:
    logger = start(ctypes=ctypes)
    workers = [logger.worker(), logger.worker()]
    count = 20000
    for worker in workers:
        say_in_background(worker, b"".join(b"%d %d\n" % (worker.serial, n) for n in range(count)))
    lines = logger.wait_for(2 * count)
    for worker in workers:
        mine = [line["message"] for line in lines if line["pid"] == 1000 + worker.serial]
        assert mine == [f"{worker.serial} {n}" for n in range(count)]


@BOTH
def test_the_end_of_a_worker_is_told_when_all_of_it_is_read(start: Start, *, ctypes: bool) -> None:
    logger = start(ctypes=ctypes, reading=False)
    worker = logger.worker()
    worker.say(b"".join(b"line %d\n" % n for n in range(5000)))
    worker.say(b"cannot go on", worker.error)
    worker.end()
    logger.tell(exited=worker.serial)
    logger.read_from_now_on()
    assert logger.told("ended") == {"ended": worker.serial}
    last = logger.told("last")
    assert last["last"] == worker.serial
    assert len(last["lines"]) == 10
    assert set(last["lines"]) <= {f"line {n}" for n in range(4990, 5000)} | {"cannot go on"}
    assert len(logger.wait_for(5001)) == 5001


def test_last_lines_are_few_and_short(logger: Logger) -> None:
    worker = logger.worker()
    worker.say(b"".join(b"\x01" * 1000 + b"%d\n" % n for n in range(20)))
    worker.end()
    told = logger.told("last")
    assert 1 <= len(told["lines"]) <= 10
    assert all(line == "\x01" * 200 for line in told["lines"])
    assert len(json.dumps(told)) < 4096


@BOTH
def test_who_else_holds_a_pipe_open_holds_nothing_up(start: Start, *, ctypes: bool) -> None:
    logger = start(ctypes=ctypes)
    worker = logger.worker()
    worker.say(b"bye\n")
    logger.tell(exited=worker.serial)  # and its descriptors are open: another process has them
    assert logger.told("last") == {"last": worker.serial, "lines": ["bye"]}
    worker.say(b"still here\n")
    logger.wait_for(2)
    assert logger.silent()
    worker.end()
    assert logger.told("ended") == {"ended": worker.serial}


@BOTH
def test_a_worker_may_close_one_stream(start: Start, *, ctypes: bool) -> None:
    logger = start(ctypes=ctypes)
    worker = logger.worker()
    worker.say(b"last words")
    worker.end(worker.out)
    assert messages(logger.wait_for(1)) == ["last words"]
    worker.say(b"more\n", worker.error)
    assert messages(logger.wait_for(2), "stderr") == ["more"]
    assert logger.silent()
    worker.end()
    assert logger.told("ended") == {"ended": worker.serial}


def test_a_logger_that_is_killed_loses_nothing(logger: Logger) -> None:
    """Under load, again and again; a few lines may come twice, each of them whole."""
    worker = logger.worker()
    count = 100_000
    thread = say_in_background(worker, b"".join(b"%d\n" % n for n in range(count)))
    for kill in range(1, 6):
        before = len(logger.lines)
        wait_until(lambda before=before: len(logger.lines) > before + 1000 or not thread.is_alive(), f"kill {kill}")
        logger.kill()
        logger.start()
    last = f'"{count - 1}"'.encode()
    wait_until(lambda: last in logger.written, "the last line")
    numbers = [int(line["message"]) for line in logger.lines]
    assert set(numbers) == set(range(count))
    assert len(numbers) < count + 6 * MAX_LINE // 2
    news = list(dict.fromkeys(numbers))
    assert news == sorted(news)


def test_the_beginning_of_a_line_survives_the_logger(logger: Logger) -> None:
    worker = logger.worker()
    worker.say(b"first\nbegin")
    logger.wait_for(1)
    wait_until(lambda: worker.left() == len("begin"), "the first line is dropped, and nothing else")
    logger.kill()
    logger.start()
    worker.say(b"ning\n")
    assert messages(logger.wait_for(2)) == ["first", "beginning"]


def test_a_pipe_that_ended_while_there_was_no_logger_is_read(logger: Logger) -> None:
    worker = logger.worker()
    logger.kill()
    worker.say(b"one\ntwo")
    worker.end()
    logger.start()
    assert messages(logger.wait_for(2)) == ["one", "two"]
    assert logger.told("ended") == {"ended": worker.serial}


@BOTH
def test_at_the_end_everything_is_written_that_is_there(start: Start, *, ctypes: bool) -> None:
    """Though it has not even begun, and somebody holds the pipe open."""
    logger = start(ctypes=ctypes)
    worker = logger.worker()
    worker.say(b"".join(b"%d\n" % n for n in range(9000)) + b"rest")
    assert logger.finish() == 0
    assert messages(logger.wait_for(9001)) == [*map(str, range(9000)), "rest"]


def test_at_the_end_nobody_who_goes_on_writing_is_waited_for(logger: Logger) -> None:
    worker = logger.worker()
    with running("yes", stdout=worker.out):
        logger.wait_for(1)
        assert logger.finish() == 0


def test_without_a_reader_the_workers_wait_and_the_end_comes_all_the_same(start: Start) -> None:
    logger = start(reading=False)
    worker = logger.worker()
    with running(sys.executable, "-c", "import os\nwhile True: os.write(1, b'x' * 99 + b'\\n')", stdout=worker.out):
        wait_until(lambda: worker.left() >= 60000, "its pipe is full")
        assert logger.finish() == 1


def test_lines_that_cannot_be_written_are_counted_and_the_workers_go_on(start: Start) -> None:
    logger = start(reading=False)
    os.close(logger.output)
    logger.output = os.open(os.devnull, os.O_RDONLY)
    worker = logger.worker()
    thread = say_in_background(worker, b"".join(b"%d\n" % n for n in range(50000)))
    dropped = 0
    while dropped < 50000:
        dropped += logger.told("dropped")["dropped"]
    assert dropped == 50000
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_signals_of_strangers_do_not_end_it(logger: Logger) -> None:
    worker = logger.worker()
    worker.say(b"one\n")
    logger.wait_for(1)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGIO):
        logger.process.send_signal(signum)
    worker.say(b"two\n")
    assert messages(logger.wait_for(2)) == ["one", "two"]


def test_it_ends_with_a_master_that_was_killed(logger: Logger) -> None:
    worker = logger.worker()
    worker.say(b"last\n")
    logger.channel.close()
    logger.process.wait(TIMEOUT)
    assert messages(logger.wait_for(1)) == ["last"]


def test_it_sleeps_when_nothing_is_written(logger: Logger) -> None:
    worker = logger.worker()
    worker.say(b"prompt> ")
    worker.say(b"x\n", worker.error)
    logger.wait_for(1)

    def switches() -> int:
        with open(f"/proc/{logger.process.pid}/status", encoding="ascii") as status:
            return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)

    before = switches()
    logger.process.poll()
    threading.Event().wait(2)
    assert switches() - before < 30
