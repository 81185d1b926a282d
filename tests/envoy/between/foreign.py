"""The end of tunnels to a workload as another implementation of HBONE has it, which serves its
connections itself: each is sent the same answer, ends, and may send more."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import Final

from meshd.capture.rules import inside
from meshd.model.interception import HBONE_PORT
from tests.envoy.between import http2
from tests.envoy.between.mesh import Host

_PING, _WINDOW_UPDATE = 6, 8
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW: Final = 4
"""SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, 6.5.2)."""
_DEFAULT_WINDOW: Final = 65_535
_LONGEST: Final = 16_384
_PREFACE: Final = 24
"""Bytes that a client says before its first frame."""
_STATUS_200: Final = b"\x88"


class Foreign:
    """Closed by its context."""

    def __init__(self, host: Host, context: ssl.SSLContext, answer: bytes) -> None:
        self.clients: list[str] = []
        """The identity of each client that has opened a tunnel."""
        self.received: dict[int, bytes] = {}
        """What each connection has sent until it ended, by its stream, in the order of their
        ends."""
        self._context, self._answer = context, answer
        self._tunnels: list[socket.socket] = []
        with inside.entered(Path(host.netns)):
            self._listener = socket.create_server(("0.0.0.0", HBONE_PORT))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._tunnels:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with (
            plain,
            contextlib.suppress(OSError, EOFError),
            self._context.wrap_socket(plain, server_side=True) as connection,
        ):
            self._tunnels.append(connection)
            _Tunnel(self, connection, self._answer).serve()


class _Tunnel:
    def __init__(self, end: Foreign, connection: ssl.SSLSocket, answer: bytes) -> None:
        self._end, self._connection, self._answer = end, connection, answer
        self._stream = connection.makefile("rb")
        self._initial = _DEFAULT_WINDOW
        self._windows = {0: _DEFAULT_WINDOW}
        self._unsent: dict[int, memoryview] = {}
        self._said: dict[int, bytes] = {}

    def serve(self) -> None:
        """Until the client closes it. Raises OSError, EOFError."""
        assert self._exactly(_PREFACE) == http2.PREFACE[:_PREFACE]
        self._send(http2.SETTINGS, 0, 0, b"")
        names = (self._connection.getpeercert() or {}).get("subjectAltName", ())
        self._end.clients += [str(name[1]) for name in names if name[0] == "URI"]
        while True:
            self._take(*self._frame())
            for stream in list(self._unsent):
                self._send_more(stream)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == http2.SETTINGS and not flags & _ACK:
            self._configure(payload)
        elif kind == _PING and not flags & _ACK:
            self._send(_PING, _ACK, 0, payload)
        elif kind == _WINDOW_UPDATE:
            self._windows[stream] = self._windows.get(stream, 0) + int.from_bytes(payload)
        elif kind == http2.HEADERS:
            self._windows.setdefault(stream, 0)
            self._windows[stream] += self._initial
            self._said[stream] = b""
            self._unsent[stream] = memoryview(self._answer)
            self._send(http2.HEADERS, _END_HEADERS, stream, _STATUS_200)
        elif kind == http2.DATA:
            self._said[stream] += payload
            if flags & _END_STREAM:
                self._end.received[stream] = self._said.pop(stream)

    def _configure(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _INITIAL_WINDOW:
                self._initial = value
        self._send(http2.SETTINGS, _ACK, 0, b"")

    def _send_more(self, stream: int) -> None:
        """What the client has room for."""
        left = self._unsent[stream]
        while left and (size := min(self._windows[0], self._windows[stream], _LONGEST, len(left))):
            last = size == len(left)
            self._send(http2.DATA, _END_STREAM if last else 0, stream, bytes(left[:size]))
            left = left[size:]
            self._windows[0] -= size
            self._windows[stream] -= size
        self._unsent[stream] = left
        if not left:
            del self._unsent[stream]

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self._connection.sendall(http2.frame(kind, flags, stream, payload))

    def _frame(self) -> tuple[int, int, int, bytes]:
        head = self._exactly(9)
        stream = int.from_bytes(head[5:])
        return head[3], head[4], stream, self._exactly(int.from_bytes(head[:3]))

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError
        return data
