"""tls.py [PORT]: a server that speaks HTTP/1.1 behind TLS, as no mesh has made it.

It says who it is, whom it sees, and by which name it was asked. Its certificate is in tls.pem.
"""

from __future__ import annotations

import http.server
import json
import os
import ssl
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        answer = {
            "pod": os.environ["HOSTNAME"],
            "peer": self.client_address[0].removeprefix("::ffff:"),
            "name": names.get(self.connection, ""),
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nobody reads it."""


names: dict[object, str] = {}


def note(connection: ssl.SSLObject | ssl.SSLSocket, name: str, _: ssl.SSLContext) -> None:
    names[connection] = name or ""


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/app/tls.pem")
context.sni_callback = note
server = http.server.ThreadingHTTPServer(("", int((*sys.argv, "8443")[1])), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
