"""Large responses are put together beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from meshd.xds.exchange import Response
from meshd.xds.protocol import Encoding
from meshd.xds.resources import CLUSTER, ROUTES, Resource


class _Content:
    """Bytes that know which thread has asked for them."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def __bytes__(self) -> bytes:
        self.threads.append(threading.current_thread())
        return b"bytes"


class _Context:
    def __init__(self) -> None:
        self.written: list[bytes] = []

    async def write(self, message: bytes) -> None:
        self.written.append(message)


@pytest.mark.parametrize(
    ("type_url", "count", "is_beside"),
    [(ROUTES, 1, True), (CLUSTER, 500, True), (CLUSTER, 1, False)],
)
def test_a_client_that_waits_for_a_large_response_holds_up_no_other(
    type_url: str, count: int, is_beside: bool
) -> None:
    content, context = _Content(), _Context()
    told = tuple(Resource(type_url, f"r{number}", "1", content) for number in range(count))
    given: Any = context
    asyncio.run(Encoding(given).write(Response(type_url, "7", told, ("gone",))))
    beside = {one is not threading.main_thread() for one in content.threads}
    assert beside == {is_beside}
    (written,) = map(discovery_pb2.DeltaDiscoveryResponse.FromString, context.written)
    assert (written.nonce, list(written.removed_resources)) == ("7", ["gone"])
    assert [one.resource.value for one in written.resources] == [b"bytes"] * count
