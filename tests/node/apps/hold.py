"""hold.py NAME=HOW,HOST,PORT[,REQUESTED HOST]…: opens connections and keeps them.

HOW is http, ws or tcp.

For each line that it reads it uses all of them once more and prints as JSON which of them have
ended, by name, and how.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys

PATIENCE = 60.0
HELLO = (
    "GET /chat HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)


class Held:
    def __init__(self, how: str, host: str, port: int, name: str) -> None:
        self._how = how
        self._host = name or host
        self._socket = socket.create_connection((host, port), PATIENCE)
        self._lines = self._socket.makefile("rb")
        if how == "ws":
            self._socket.sendall(HELLO.format(host=self._host).encode())
            while line := self._lines.readline().strip():
                if line.startswith(b"HTTP/1.1 ") and b" 101 " not in line:
                    raise ConnectionError(line.decode())
        elif how == "tcp":
            # Where no protocol is declared, the first bytes of the client decide on it.
            self._socket.sendall(b"hello\n")
            json.loads(self._lines.readline())
            self._lines.readline()

    def use(self) -> None:
        """Raises OSError or HTTPException when it has ended."""
        if self._how != "http":
            self._socket.sendall(b"hello\n")
            if self._lines.readline() != b"hello\n":
                raise ConnectionError("closed")
            return
        self._socket.sendall(f"GET /who HTTP/1.1\r\nhost: {self._host}\r\n\r\n".encode())
        response = http.client.HTTPResponse(self._socket)
        response.begin()
        response.read()
        if response.status != 200 or response.getheader("connection") == "close":
            raise ConnectionError(f"{response.status}, {response.getheader('connection')}")


def ended(held: dict[str, Held]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, connection in list(held.items()):
        try:
            connection.use()
        except (OSError, http.client.HTTPException) as error:
            found[name] = f"{type(error).__name__}: {error}"
            del held[name]
    return found


held: dict[str, Held] = {}
for argument in sys.argv[1:]:
    title, _, target = argument.partition("=")
    how, host, port, *name = target.split(",")
    held[title] = Held(how, host, int(port), "".join(name))
print(json.dumps(ended(held)), flush=True)
for _ in sys.stdin:
    print(json.dumps(ended(held)), flush=True)
