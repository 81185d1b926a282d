"""The socket at which the plugin hands over requests: root's alone, one request a connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from meshd.base.errors import MeshdError, SystemRefusedError
from meshd.cni import request as requests
from meshd.cni.request import CniError, Request
from meshd.wire import channel

MOST: Final = 4 * 1024 * 1024
"""Bytes of a request."""
_PATIENCE: Final = 10.0
"""Seconds for a request to come whole."""
_log: Final = logging.getLogger(__name__)

Handle = Callable[[Request], Awaitable[None]]
"""Does what is asked for. Raises MeshdError."""


async def listen(path: Path, handle: Handle) -> asyncio.Server:
    """Serve requests. Raises SystemRefusedError, InvalidInputError."""
    channel.check_length(path)

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw: socket.socket = writer.get_extra_info("socket")._sock
        try:
            if channel.peer_uid(raw) == 0:
                writer.write(await _answer(reader, handle))
                await writer.drain()
        except (ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    try:
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(accepted, path)
        path.chmod(0o600)
    except OSError as error:
        raise SystemRefusedError(f"{path}: cannot listen there: {error.strerror}") from None
    return server


async def _answer(reader: asyncio.StreamReader, handle: Handle) -> bytes:
    """Raises TimeoutError for a request that does not come."""
    version = requests.VERSIONS[-1]
    try:
        async with asyncio.timeout(_PATIENCE):
            given = await _whole(reader)
        asked = requests.parse(given)
        version = asked.config.cni_version
        await handle(asked)
        return requests.answered(asked)
    except CniError as error:
        refused = error
    except MeshdError as error:
        refused = CniError(requests.TRY_AGAIN, "meshd cannot do that now", str(error))
    _log.warning("CNI: %s", refused, extra={"MESHD_EVENT": "cni"})
    return requests.refused(refused, version)


async def _whole(reader: asyncio.StreamReader) -> bytes:
    parts = bytearray()
    while part := await reader.read(65536):
        parts += part
        if len(parts) > MOST:
            raise CniError(requests.UNDECODED, f"a request has more than {MOST} bytes")
    return bytes(parts)
