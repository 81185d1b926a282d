"""A plain service of a host: answers HTTP with its name and what it saw of its client.

service.py NAME PORT
"""

from __future__ import annotations

import http.server
import json
import socket
import sys

NAME, PORT = sys.argv[1], int(sys.argv[2])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        answer = {
            "name": NAME,
            "peer": self.client_address[0].removeprefix("::ffff:"),
            "xfcc": self.headers.get_all("x-forwarded-client-cert") or [],
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


with Server(("::", PORT), Handler) as server:
    server.serve_forever()
