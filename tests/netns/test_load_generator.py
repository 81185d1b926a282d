"""The bench's load generator sends what is due, and counts what became of it."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import generator
from tests.waiting import PATIENCE

SOURCE = Path(generator.__file__).with_suffix(".c")
WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BADLY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class Server:
    """Answers each request in two pieces, so that no answer comes whole."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while request := connection.recv(4096):
                for piece in (self.answer[:20], self.answer[20:]):
                    connection.sendall(piece)
                if b"Connection: close" in request:
                    return

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("generator") / "generator"
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(made), str(SOURCE)]
    subprocess.run(command, check=True, timeout=PATIENCE)
    return str(made)


@pytest.fixture(params=[WELL])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    made = Server(request.param)
    yield made
    made.close()


def run(program: str, arguments: list[str]) -> str:
    done = subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return done.stdout


def test_all_that_is_due_is_sent_over_kept_connections(program: str, server: Server) -> None:
    arguments = generator.at_rate("127.0.0.1", server.port, "x", 200, 0.5, 4)

    found = generator.parse(run(program, arguments))

    assert (found.due, found.failed) == (100, 0)
    assert server.connections <= 4


def test_a_new_connection_for_each_is_one_for_each(program: str, server: Server) -> None:
    arguments = generator.at_rate("127.0.0.1", server.port, "x", 100, 0.5, 4)

    found = generator.parse(run(program, [*arguments[:-1], "new"]))

    assert (found.due, found.failed, server.connections) == (50, 0, 50)


@pytest.mark.parametrize("server", [BADLY], indirect=True)
def test_error_responses_count_as_failures(program: str, server: Server) -> None:
    arguments = generator.at_rate("127.0.0.1", server.port, "x", 100, 0.2, 4)

    found = json.loads(run(program, arguments))

    assert (found["due"], found["answered"], found["failed"]) == (20, 0, 20)


def test_connections_are_held_that_have_been_answered(program: str, server: Server) -> None:
    arguments = generator.holding("127.0.0.1", server.port, "x", 50)

    assert json.loads(run(program, arguments)) == {"open": 50}
    assert server.connections == 50
