"""An answer of the authority is for the request that was made, or it is refused."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from meshd.base.errors import InvalidInputError
from meshd.ca import answers, authority
from meshd.ca.standalone import Standalone
from meshd.ca.store import Store
from meshd.model.workload import Identity

REVIEWS = Identity("cluster.local", "shop", "reviews")
BANK = Identity("cluster.local", "bank", "till")


@pytest.fixture
def signer(tmp_path_factory: pytest.TempPathFactory) -> Standalone:
    directory = tmp_path_factory.mktemp("ca") / "identity"
    return Standalone(Store(directory, "cluster.local", 10**7), time.time())


async def issued(signer: Standalone, request: authority.Request) -> bytes:
    return (await signer.sign(request, time.time())).chain


def _request(identity: Identity) -> authority.Request:
    return authority.request(identity, authority.new_key(), 3600)


async def _both(signer: Standalone, asked: authority.Request, given: authority.Request) -> None:
    answers.check(asked.csr, await issued(signer, given), signer.roots())


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def test_the_certificate_that_was_asked_for_is_taken(signer: Standalone) -> None:
    request = _request(REVIEWS)
    run(_both(signer, request, request))


def test_another_identity_is_refused(signer: Standalone) -> None:
    key = authority.new_key()
    asked, given = (authority.request(one, key, 3600) for one in (REVIEWS, BANK))
    with pytest.raises(InvalidInputError, match=r"/ns/bank/sa/till; .*/ns/shop/sa/reviews was"):
        run(_both(signer, asked, given))


def test_another_key_is_refused(signer: Standalone) -> None:
    with pytest.raises(InvalidInputError, match="another key"):
        run(_both(signer, _request(REVIEWS), _request(REVIEWS)))


def test_a_certificate_of_another_authority_is_refused(
    signer: Standalone, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("other") / "identity"
    other = Standalone(Store(directory, "cluster.local", 10**7), time.time())
    request = _request(REVIEWS)

    async def mixed() -> None:
        answers.check(request.csr, await issued(other, request), signer.roots())

    with pytest.raises(InvalidInputError, match="none of the mesh's roots"):
        run(mixed())


def test_a_certificate_whose_key_cannot_be_read_is_refused(signer: Standalone) -> None:
    request = _request(REVIEWS)
    block = asyncio.run(issued(signer, request)).partition(b"-----END")[0].partition(b"-----\n")[2]
    der = bytearray(base64.b64decode(block))
    point = der.index(b"\x03\x42\x00\x04")  # a bit string with an uncompressed point on P-256
    der[point + 3] = 9
    damaged = b"-----BEGIN CERTIFICATE-----\n%b-----END CERTIFICATE-----\n" % base64.encodebytes(
        der
    )
    with pytest.raises(InvalidInputError, match="cannot be read"):
        answers.check(request.csr, damaged, signer.roots())


@pytest.mark.parametrize("chain", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nAA\n"])
def test_an_answer_without_a_chain_of_certificates_is_refused(
    signer: Standalone, chain: bytes
) -> None:
    csr = _request(REVIEWS).csr
    assert csr.public_bytes(Encoding.PEM)
    with pytest.raises(InvalidInputError, match="no chain"):
        answers.check(csr, chain, signer.roots())
