"""A small HTTP/1.1 server and client, shared by all of Bookinfo's services."""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

FORWARDED: Final = (
    "authorization",
    "b3",
    "cookie",
    "grpc-trace-bin",
    "jwt",
    "sw8",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-b3-flags",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-cloud-trace-context",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-trace-id",
    "x-ot-span-context",
    "x-request-id",
)
"""What a service hands on, so that a request can be traced and is still its user's."""
_MAX_BODY: Final = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Message
    body: bytes
    client: str

    def forwarded(self, *more: str) -> dict[str, str]:
        """Return the headers to forward to the next service."""
        return {name: self.headers[name] for name in (*FORWARDED, *more) if name in self.headers}

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode("latin-1")).items()}


@dataclasses.dataclass(frozen=True)
class Response:
    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def as_json(value: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(value).encode(), "application/json")


def as_html(text: str, status: int = 200) -> Response:
    return Response(status, text.encode(), "text/html; charset=utf-8")


def redirect(location: str, *headers: tuple[str, str]) -> Response:
    return Response(302, headers=(("Location", location), *headers))


Action = Callable[..., Response]
Route = tuple[str, str, Action]
"""Methods separated by |, a regular expression for the whole path, and what answers: it is given
the request and the expression's groups."""


def answer(routes: list[Route], request: Request) -> Response:
    """Return the response of the first route that fits."""
    known = False
    for methods, pattern, action in routes:
        if match := re.fullmatch(pattern, request.path):
            known = True
            if request.method in methods.split("|"):
                return action(request, *match.groups())
    return (
        as_json({"error": "method not allowed"}, 405)
        if known
        else as_json({"error": "not found"}, 404)
    )


class _Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 256

    def server_bind(self) -> None:
        # Both IPv4 and IPv6; and unlike HTTPServer's, no look-up of the host's own name.
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def make_server(routes: list[Route], port: int, *, quiet: bool = False) -> ThreadingHTTPServer:
    """Return a server that listens already; port 0 takes any."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "bookinfo"
        sys_version = ""
        wbufsize = -1
        disable_nagle_algorithm = True

        def _handle(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            if length > _MAX_BODY:
                self.send_error(413)
                return
            target = urlsplit(self.path)
            request = Request(
                self.command,
                target.path,
                parse_qs(target.query),
                self.headers,
                self.rfile.read(length),
                self.client_address[0].removeprefix("::ffff:"),
            )
            self._send(self._answer(request))

        def _answer(self, request: Request) -> Response:
            """Return a response; a route that fails affects its own request and not the
            connection."""
            try:
                return answer(routes, request)
            except Exception:
                traceback.print_exc()
                return as_json({"error": "internal server error"}, 500)

        def _send(self, response: Response) -> None:
            self.send_response(response.status)
            for name, value in response.headers:
                self.send_header(name, value)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(response.body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = _handle  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            if not quiet and "kube-probe" not in self.headers.get("user-agent", ""):
                super().log_message(format, *args)

    return _Server(("::", port), Handler)


def serve(routes: list[Route], default_port: int = 9080) -> None:
    """Serve for ever, on the port that the command line names."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else default_port
    with make_server(routes, port) as server:
        print(f"listening on port {port}", flush=True)
        server.serve_forever()


def get(host: str, path: str, headers: Mapping[str, str], timeout: float) -> tuple[int, Any]:
    """Ask another service: its status and the JSON that it answered.

    ``host`` may have a port. Raises OSError when it cannot be reached or takes longer than
    ``timeout`` seconds, ValueError when it answers something else than JSON.
    """
    connection = http.client.HTTPConnection(host, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Connection": "close", **headers})
        response = connection.getresponse()
        body = response.read()
    except http.client.HTTPException as error:
        raise OSError(f"no proper answer: {error!r}") from None
    finally:
        connection.close()
    return response.status, json.loads(body) if response.status < 400 else None
