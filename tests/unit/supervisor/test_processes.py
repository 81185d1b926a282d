"""Processes are known again, watched and heard."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from meshd.supervisor import notify
from meshd.supervisor.output import File, Pipe
from meshd.supervisor.process import Identity, Process, command_line, describe, identify


async def ended(*command: str) -> tuple[int | None, list[str]]:
    heard: list[str] = []
    status: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    pipe = Pipe(heard.append)
    writer = pipe.open()
    Process.spawn(command, dict(os.environ), writer, status.set_result)
    os.close(writer)
    async with asyncio.timeout(60):
        result = await status
    pipe.finish()
    return result, heard


def test_a_process_is_heard_to_its_last_word() -> None:
    status, heard = asyncio.run(ended("sh", "-c", "echo one >&2; printf two; exit 3"))
    assert (status, heard) == (3, ["one", "two"])


def test_what_a_process_started_ends_with_it() -> None:
    program = "import os, subprocess; print(subprocess.Popen(['sleep', '1000']).pid)"
    _, heard = asyncio.run(ended(sys.executable, "-c", program))
    deadline = time.monotonic() + 60
    while identify(int(heard[0])):  # killed, and now the kernel has to take it away
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_is_named_by_its_pid_and_its_start() -> None:
    own = identify(os.getpid())
    assert own == identify(os.getpid())
    assert own
    assert own.started > 0
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin
        assert other.stdout
        other.stdin.write(b"x")
        other.stdin.flush()
        assert other.stdout.read(1) == b"x"
        assert command_line(other.pid)[0] == "cat"
        other.stdin.close()
    assert identify(other.pid) is None


def test_another_process_with_the_same_pid_is_not_adopted() -> None:
    async def adopt() -> Process | None:
        return Process.adopt(Identity(os.getpid(), 1), lambda _: None)

    assert asyncio.run(adopt()) is None


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (None, "ended"),
        (0, "exited with status 0"),
        (7, "exited with status 7"),
        (-signal.SIGKILL, "killed by SIGKILL"),
        (-99, "killed by signal 99"),
    ],
)
def test_ends_are_told_in_words(status: int | None, told: str) -> None:
    assert describe(status) == told


def test_a_file_is_emptied_before_it_grows_and_nothing_of_it_is_lost() -> None:
    heard: list[str] = []

    async def write() -> None:
        output = File("x", heard.append)
        descriptor = output.open()
        for start in range(0, 3000, 1000):
            text = "".join(f"{number} {'x' * 1000}\n" for number in range(start, start + 1000))
            os.write(descriptor, text.encode())
            await _until(lambda: heard[-1:] and heard[-1].startswith(f"{start + 999} "))  # noqa: B023
        await _until(lambda: os.fstat(descriptor).st_blocks * 512 < 1024 * 1024)
        os.write(descriptor, b"last")
        os.close(descriptor)
        output.finish()
        assert output.last == "last"

    asyncio.run(write())
    assert [line.split()[0] for line in heard] == [*map(str, range(3000)), "last"]


async def _until(predicate: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not predicate():  # noqa: ASYNC110 - what it waits for is not ours to tell
            await asyncio.sleep(0.01)


def test_the_next_supervisor_goes_on_where_this_one_stopped_reading() -> None:
    heard: list[str] = []

    async def write() -> None:
        first = File("x", lambda _: None)
        descriptor = first.open()
        os.write(descriptor, b"read\n" * 2000)
        first.finish()
        os.write(descriptor, b"not yet\n")
        second = File("x", heard.append)
        second.resume(os.getpid())
        os.write(descriptor, b"and more\n")
        os.close(descriptor)
        second.finish()

    asyncio.run(write())
    assert heard == ["not yet", "and more"]


def test_a_process_that_has_no_such_file_is_gone_on_with_all_the_same() -> None:
    async def resume() -> None:
        output = File("x", lambda _: None)
        output.resume(os.getpid())
        output.finish()

    asyncio.run(resume())


def test_what_nobody_reads_is_kept_as_far_as_it_fits_and_then_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meshd.supervisor.output._MOST_UNREAD", 64 * 1024)
    heard: list[str] = []

    async def write() -> None:
        output = File("x", heard.append)
        descriptor = output.open()
        written = 0
        with pytest.raises(OSError, match="No space left"):
            while True:
                written += os.write(descriptor, b"x" * 1023 + b"\n")
        assert written == 64 * 1024
        await _until(lambda: len(heard) == 65)
        assert "lines before this one are lost" in heard.pop()
        os.write(descriptor, b"y\n" * 20 * 1024)
        os.close(descriptor)
        output.finish()

    asyncio.run(write())
    assert heard == ["x" * 1023] * 64 + ["y"] * 20 * 1024


def test_systemd_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify.notify(READY=1, STATUS="all is well")
        assert listener.recv(1000) == b"READY=1\nSTATUS=all is well"


def test_the_watchdog_is_fed_twice_as_often_as_it_asks_and_only_when_it_asks_us() -> None:
    assert notify.watchdog_interval({"WATCHDOG_USEC": "3000000"}, 5) == 1.5
    assert notify.watchdog_interval({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "5"}, 5) == 1.5
    assert notify.watchdog_interval({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "6"}, 5) == 0
    assert notify.watchdog_interval({}, 5) == 0
