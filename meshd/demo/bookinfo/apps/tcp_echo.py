"""Answers each line with a prefix and that line: ``tcp_echo.py 9000,9001 hello``."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading


class _Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def make_server(port: int, prefix: str) -> socketserver.ThreadingTCPServer:
    """Return a server that listens on IPv4 and IPv6; port 0 takes any."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(prefix.encode() + b" " + line)

    return _Server(("::", port), Handler)


def main() -> None:
    ports = sys.argv[1] if len(sys.argv) > 1 else "9000"
    prefix = sys.argv[2] if len(sys.argv) > 2 else "hello"
    servers = [make_server(int(port), prefix) for port in ports.split(",")]
    print(f"listening on ports {ports}", flush=True)
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
