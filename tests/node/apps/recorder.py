"""A TLS server outside the mesh: whom its clients' certificates name, connection by connection.

Beside it everything of this directory's ``server.py`` runs no mesh's code: it sees what is on the
wire. Port 9443: HTTP/1.1; port 9444: one line in, one line out. Certificates: server.pem, ca.pem.
"""

from __future__ import annotations

import itertools
import json
import socketserver
import ssl
import threading
from pathlib import Path

HERE = Path(__file__).parent
connections = itertools.count()


def context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(HERE / "server.pem")
    made.load_verify_locations(HERE / "ca.pem")
    made.verify_mode = ssl.CERT_REQUIRED
    return made


class Handler(socketserver.StreamRequestHandler):
    def setup(self) -> None:
        self.request = context().wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        port = self.request.getsockname()[1]
        names = self.request.getpeercert()["subjectAltName"]
        serial = self.request.getpeercert()["serialNumber"]
        number = next(connections)
        while line := self.rfile.readline():
            if port == 9443:
                while self.rfile.readline().strip():
                    pass
            answer = json.dumps(
                {
                    "connection": number,
                    "identities": [value for kind, value in names if kind == "URI"],
                    "serial": serial,
                    "peer": self.client_address,
                    "line": line.decode(),
                }
            ).encode()
            if port == 9443:
                head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer)
                self.wfile.write(head + answer)
            else:
                self.wfile.write(answer + b"\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is not let in."""


http, lines = Server(("0.0.0.0", 9443), Handler), Server(("0.0.0.0", 9444), Handler)
threading.Thread(target=http.serve_forever, daemon=True).start()
lines.serve_forever()
