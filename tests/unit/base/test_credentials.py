"""Credentials that no proxy would take are told from those that they take; ``tests/envoy`` holds
that proxies judge alike."""

from __future__ import annotations

import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from meshd.base import credentials
from meshd.base.credentials import check_authority, check_certificate
from meshd.base.errors import InvalidInputError
from tests.pem import certificate_pem, key_pem, new_key, revocations_pem, rsa_key

KEY = new_key()
GOOD = certificate_pem(KEY)


def test_a_certificate_with_its_key_is_good_while_it_lives() -> None:
    now = time.time()
    life = check_certificate(GOOD, key_pem(KEY))
    assert life.problem(now) == ""
    assert "expired on" in life.problem(now + 31 * 86400)
    assert "not valid before" in life.problem(now - 31 * 86400)


@pytest.mark.parametrize(
    ("chain", "key", "said"),
    [
        (GOOD, key_pem(new_key()), "does not belong"),
        (GOOD, key_pem(rsa_key()), "does not belong"),
        (certificate_pem(new_key()) + GOOD, key_pem(KEY), "does not belong"),
        (b"", key_pem(KEY), "certificate is not in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", key_pem(KEY), "certificate cannot be read"),
        (GOOD + GOOD[:200], key_pem(KEY), "number 2 of 2"),
        (GOOD, b"", "private key is not in PEM"),
        (GOOD, key_pem(KEY)[:80], "private key cannot be read"),
        (GOOD, key_pem(KEY, password=b"x"), "password"),
        (certificate_pem(rsa := rsa_key(1024)), key_pem(rsa), "1024 bits"),
        (certificate_pem(small := new_key(ec.SECP224R1())), key_pem(small), "curve secp224r1"),
    ],
    ids=range(11),  # keys are made anew, and workers must agree on the names of tests
)
def test_credentials_that_can_never_work_are_named(chain: bytes, key: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as raised:
        check_certificate(chain, key)
    assert "BEGIN" not in str(raised.value)


@pytest.mark.parametrize(
    ("roots", "revoked", "said"),
    [
        (b"rubbish", b"", "authority is not in PEM"),
        (GOOD + GOOD[:200], b"", "authority cannot be read"),
        (GOOD, b"rubbish", "revocation list is not in PEM"),
        (GOOD, revocations_pem(KEY)[:100], "revocation list cannot be read"),
    ],
    ids=range(4),
)
def test_tls_settings_that_verify_nothing_are_named(
    roots: bytes, revoked: bytes, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        check_authority(roots, revoked)
    check_authority(GOOD, revocations_pem(KEY))


def test_old_names_of_pem_blocks_are_read_as_proxies_read_them() -> None:
    old = GOOD.replace(b"BEGIN ", b"BEGIN TRUSTED ").replace(b"END ", b"END TRUSTED ")
    assert credentials.check_certificate(old, key_pem(KEY))


def test_a_block_with_other_letters_than_base64_has_cannot_be_read() -> None:
    with pytest.raises(InvalidInputError, match="certificate cannot be read"):
        check_certificate(GOOD.replace(b"M", "\u2028".encode(), 1), key_pem(KEY))
