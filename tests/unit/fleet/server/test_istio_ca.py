"""Requests for certificates, as they come from nodes."""

from __future__ import annotations

import tracemalloc

import pytest

from meshd.base.errors import InvalidInputError
from meshd.fleet.server import istio_ca
from meshd.protos.istio_ca_pb2 import IstioCertificateRequest

_MANY = 2_000_000


def test_a_request_is_read() -> None:
    asked = IstioCertificateRequest(csr="PEM", validity_duration=60)
    assert istio_ca.decode(asked.SerializeToString()) == asked


@pytest.mark.parametrize(
    "message",
    [b"\x0a\x01a" * _MANY, b"\x18\x01" * _MANY, b"\x3a\x00" * _MANY],
    ids=["requests", "durations", "unknown fields"],
)
def test_an_oversized_request_is_refused_before_it_is_decoded(message: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError, match="65536 are allowed"):
            istio_ca.decode(message)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_an_invalid_request_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidInputError, match="not a request"):
        istio_ca.decode(b"\xff" * 64)
