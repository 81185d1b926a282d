"""Runs one readiness probe, from inside the pod.

No address is exempt from redirection for it: a neighbour could take that address. What a pod sends
to itself is not redirected, so a probe reaches the application whatever the mesh requires of
others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
from pathlib import Path

from meshd.api.kubernetes.types import HTTPGetAction, Probe
from meshd.pods import launch
from meshd.pods.network import entered
from meshd.pods.processes import ended


async def passes(probe: Probe, address: str, pid: int, user: int) -> bool:
    """Return whether the probe passes in time; ``pid`` is the container's process."""
    try:
        async with asyncio.timeout(max(probe.timeout_seconds, 1)):
            if probe.http_get:
                return await _get(probe.http_get, pid, address)
            if probe.tcp_socket:
                return await _connect(pid, address, int(probe.tcp_socket.port))
            if probe.exec:
                return await _run(probe.exec.command, pid, user)
    except (OSError, TimeoutError, ValueError):
        return False
    return True


async def _open(pid: int, address: str, port: int) -> socket.socket:
    """Return a connection of the pod to itself."""
    with entered(Path(f"/proc/{pid}/ns/net")):
        connection = socket.socket()
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except BaseException:
        connection.close()
        raise
    return connection


async def _connect(pid: int, address: str, port: int) -> bool:
    (await _open(pid, address, port)).close()
    return True


async def _get(action: HTTPGetAction, pid: int, address: str) -> bool:
    connection = await _open(pid, address, int(action.port))
    tls = _unverified() if action.scheme == "HTTPS" else None
    reader, writer = await asyncio.open_connection(
        sock=connection, ssl=tls, server_hostname="" if tls else None
    )
    try:
        path = action.path if action.path.startswith("/") else f"/{action.path}"
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {address}:{action.port}\r\n"
            "User-Agent: kube-probe/meshd\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode()
        )
        status = (await reader.readline()).split()
        return len(status) > 1 and 200 <= int(status[1]) < 400
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _unverified() -> ssl.SSLContext:
    """Return a context without verification: a probe asks whether the server answers, not which it
    is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _run(command: tuple[str, ...], pid: int, user: int) -> bool:
    """Run a command beside the container's process; one that takes too long is killed."""
    child = subprocess.Popen(  # noqa: ASYNC220 - asyncio's own way takes a thread for each
        launch.inside(pid, user, command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        child.returncode = await ended(child.pid)
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    return child.returncode == 0
