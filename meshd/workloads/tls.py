"""One question over TLS, on an existing connection, for an HTTPS check.

It uses memory buffers, because asyncio was imported without TLS (``meshd.__main__``).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

_LONGEST: Final = 65536
"""Bytes that are read at a time."""


async def first_line(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> bytes:
    """Return the first line of the answer; less if the server hangs up.

    Raises OSError if it does not speak TLS. The server is not verified: a check asks whether it
    answers, not which it is.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    tls = context.wrap_bio(incoming, outgoing)

    async def bring_about(step: Callable[[], T]) -> T:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                pass
            finally:
                writer.write(outgoing.read())
            if data := await reader.read(_LONGEST):
                incoming.write(data)
            else:
                incoming.write_eof()

    await bring_about(tls.do_handshake)
    await bring_about(lambda: tls.write(request))
    answer = b""
    while b"\n" not in answer and len(answer) < _LONGEST:
        part = await bring_about(lambda: tls.read(_LONGEST))
        if not part:
            break
        answer += part
    return answer.partition(b"\n")[0]
