"""keeper.py [PORT]: an HTTP/1.1 server that keeps what it is sent.

``/kept`` answers with all of it, for who asks beside it, where no mesh is between. What is asked
for below ``/once`` is there only when it is asked for again.
"""

from __future__ import annotations

import http.server
import json
import sys
import threading
from typing import Any

kept: list[dict[str, Any]] = []
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        status = 200
        with lock:
            if self.path == "/kept":
                answer = json.dumps(kept).encode()
            else:
                headers = {name.lower(): value for name, value in self.headers.items()}
                peer = self.client_address[0].removeprefix("::ffff:")
                seen = {"path": self.path, "headers": headers, "peer": peer, "body": len(body)}
                if self.path.startswith("/once") and self.path not in (one["path"] for one in kept):
                    status = 503
                kept.append(seen | {"port": self.connection.getsockname()[1]})
                answer = b"kept\n"
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nobody reads it."""


servers = [
    http.server.ThreadingHTTPServer(("", int(port)), Handler)
    for port in sys.argv[1:] or (8080, 8081)
]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
servers[0].serve_forever()
