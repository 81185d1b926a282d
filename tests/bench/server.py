"""The web server that loads are sent to: nginx, which takes the least of the CPU that all share."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from meshd.base.errors import SystemRefusedError
from tests.bench.ground import Ground, Host
from tests.bench.node import eventually

PORTS: Final = {"http": 8080, "tcp": 9000, "http2": 8090, "grpc": 8091}
"""By what is spoken; TCP carries HTTP, unseen by the proxies."""
_SERVER: Final = Path("build/nginx/usr/sbin/nginx")
"""Where ``make setup-bench`` puts it."""
_NGINX: Final = """\
worker_processes {workers};
daemon off;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
  sendfile on;
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  http2_max_requests 1000000000;
  server {{
    listen 8080 backlog=4096;
    listen 9000 backlog=4096;
    listen 8090 http2 backlog=4096;
    listen 8091 http2 backlog=4096;
    location = /large {{ alias {directory}/large; }}
    location = /gigabyte {{ alias {directory}/gigabyte; }}
    location /bench.Hello/ {{
      default_type application/grpc;
      add_trailer grpc-status 0;
      return 200 "hello";
    }}
    location / {{ return 200 "hello, bench\\n"; }}
  }}
}}
"""
_CONNECTIONS: Final = 16384
"""Of each of its processes."""
_LARGE: Final = 50 * 1000 * 1000
"""Bytes of the answer to a request for /large."""
GIGABYTE: Final = 1000 * 1000 * 1000


def start(ground: Ground, name: str, *, workers: int = 1, core: int | None = None) -> Host:
    """``core``: the only one that it runs on. Raises SystemRefusedError."""
    if not _SERVER.exists():
        raise SystemRefusedError(f"{_SERVER} not found; run: make setup-bench")
    host = ground.add(name)
    directory = ground.directory / f"{name}.nginx"
    directory.mkdir()
    with (directory / "large").open("wb") as large:
        large.truncate(_LARGE)
    with (directory / "gigabyte").open("wb") as gigabyte:
        gigabyte.truncate(GIGABYTE)
    config = directory / "nginx.conf"
    limits = {"workers": workers, "connections": _CONNECTIONS}
    config.write_text(_NGINX.format(directory=directory, **limits), encoding="utf-8")
    command = [str(_SERVER.absolute()), "-p", str(directory), "-e", "stderr", "-c", str(config)]
    ground.start(host, on_core(core, command))
    for port in PORTS.values():
        listening(host, port)
    return host


def on_core(core: int | None, command: list[str]) -> list[str]:
    return command if core is None else ["taskset", "--cpu-list", str(core), *command]


def listening(host: Host, port: int) -> None:
    """Raises NotReadyError."""

    def listens() -> bool:
        return f":{port} " in host.run(["ss", "-Hltn"], timeout=5)

    eventually(listens, f"{host.name} listens on port {port}", 10)
