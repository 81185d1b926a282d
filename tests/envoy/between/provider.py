"""An extension provider: a server for external authorization, over gRPC and over HTTP."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.server
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2
from envoy.type.v3 import http_status_pb2

from meshd.capture.rules import inside

ALLOWED = "allow"
"""The value of the header ``x-ext-authz`` of requests that are allowed, as in Istio's example."""


class Question(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]
    peer: str
    """Address of the proxy that asks."""
    body: str = ""


class Provider:
    """Answers at two ports of a namespace, and remembers what it was asked."""

    def __init__(self, netns: str, grpc_port: int, http_port: int) -> None:
        self.asked: list[Question] = []
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((self._rpc(),))
        with inside.entered(Path(netns)):
            assert self._server.add_insecure_port(f"0.0.0.0:{grpc_port}") == grpc_port
            self._web = http.server.ThreadingHTTPServer(("0.0.0.0", http_port), _handler(self))
        self._server.start()
        threading.Thread(target=self._web.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.stop(None).wait()
        self._web.shutdown()
        self._web.server_close()

    def _rpc(self) -> grpc.GenericRpcHandler:
        check = grpc.unary_unary_rpc_method_handler(
            self._check,
            request_deserializer=external_auth_pb2.CheckRequest.FromString,
            response_serializer=external_auth_pb2.CheckResponse.SerializeToString,
        )
        name = "envoy.service.auth.v3.Authorization"
        return grpc.method_handlers_generic_handler(name, {"Check": check})

    def _check(self, request: external_auth_pb2.CheckRequest, context: Any) -> Any:
        asked = request.attributes.request.http
        headers = dict(asked.headers)
        peer = context.peer().split(":")[1]
        self.asked.append(Question(asked.method, asked.path, headers, peer, asked.body))
        answer = external_auth_pb2.CheckResponse()
        if headers.get("x-ext-authz") == ALLOWED:
            answer.ok_response.headers.add().header.MergeFrom(_header("x-decided", "allowed"))
            return answer
        answer.status.code = grpc.StatusCode.PERMISSION_DENIED.value[0]
        answer.denied_response.status.code = http_status_pb2.StatusCode.Forbidden
        answer.denied_response.headers.add().header.MergeFrom(_header("x-decided", "denied"))
        return answer

    @contextlib.contextmanager
    def questions(self) -> Generator[list[Question]]:
        """Those of the block."""
        self.asked = []
        yield self.asked


def _header(key: str, value: str) -> base_pb2.HeaderValue:
    return base_pb2.HeaderValue(key=key, value=value)


def _handler(owner: Provider) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            length = int(headers.get("content-length", "0"))
            body = self.rfile.read(length).decode()
            asked = Question(self.command, self.path, headers, self.client_address[0], body)
            owner.asked.append(asked)
            allowed = headers.get("x-ext-authz") == ALLOWED
            self.send_response(200 if allowed else 403)
            self.send_header("x-decided", "allowed" if allowed else "denied")
            self.send_header("x-secret", "secret")
            self.send_header("content-length", "0")
            self.end_headers()

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler
