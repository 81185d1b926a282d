"""An application that answers as a request's path asks, and remembers what arrived."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from meshd.capture.rules import inside

BANNER = b"220 the server speaks first\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class Application:
    """HTTP on some ports of a namespace; on others it speaks first and then echoes."""

    def __init__(self, netns: str, http: tuple[int, ...], server_first: tuple[int, ...]) -> None:
        self.heads: list[str] = []
        """Of the requests that arrived."""
        self.peers: list[str] = []
        """Addresses from which connections came."""
        self._listeners: list[socket.socket] = []
        for ports, serve in ((http, self._serve_http), (server_first, _serve_first)):
            for port in ports:
                with inside.entered(Path(netns)):
                    listener = socket.create_server(("0.0.0.0", port))
                self._listeners.append(listener)
                threading.Thread(target=self._accept, args=(listener, serve), daemon=True).start()

    def close(self) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        def handle(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                serve(connection)

        while True:
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            self.peers.append(peer[0])
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    def requests(self, path: str) -> int:
        return sum(head.split(" ")[1] == path for head in self.heads)

    def _serve_http(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        while head := _read_head(stream.readline):
            self.heads.append(head.decode("latin-1"))
            path = head.split(b" ")[1]
            if path.startswith(b"/close"):
                return
            if path.startswith(b"/refuse"):
                connection.sendall(
                    b"HTTP/1.1 417 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                )
                return
            if path.startswith(b"/socket"):
                connection.sendall(
                    b"HTTP/1.1 101 Go on\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
                )
                _echo(connection)
                return
            if b"\r\nexpect: 100-continue" in head.lower():
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = _read_body(head, stream)
            status = b"503 Sorry" if path.startswith(b"/503") else b"200 OK"
            answer = head + body
            connection.sendall(
                b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status, len(answer), answer)
            )


def _read_head(readline: Callable[[], bytes]) -> bytes:
    head = b""
    while line := readline():
        head += line
        if line == b"\r\n":
            return head
    return b""


def _read_body(head: bytes, stream: BinaryIO) -> bytes:
    if length := _LENGTH.search(head):
        return stream.read(int(length[1]))
    body = b""
    if b"\r\ntransfer-encoding: chunked\r\n" in head.lower():
        while size := int(stream.readline() or b"0", 16):
            body += stream.read(size)
            stream.readline()
        _read_head(stream.readline)
    return body


def _serve_first(connection: socket.socket) -> None:
    connection.sendall(BANNER)
    _echo(connection)


def _echo(connection: socket.socket) -> None:
    while data := connection.recv(4096):
        connection.sendall(data)
