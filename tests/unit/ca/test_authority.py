"""Leaves have the shape that Istio's have, and OpenSSL verifies them against the root."""

from __future__ import annotations

import asyncio
import datetime
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshd.base.errors import InvalidInputError
from meshd.ca import authority
from meshd.ca.authority import Authority, Issued, Request
from meshd.model.workload import Identity
from tests.waiting import PATIENCE

_NOW = 1_800_000_000.25
_DAY = 86400.0
_REVIEWS = Identity("cluster.local", "default", "bookinfo-reviews")


def _authority(now: float = _NOW, lifetime: float = 3650 * _DAY) -> Authority:
    root_key, key = authority.new_key(), authority.new_key()
    root = authority.make_root(root_key, "cluster.local", now, lifetime)
    made = authority.make_intermediate(key, "cluster.local", (root_key, root), now, lifetime / 10)
    return Authority("cluster.local", key, (made,), made, (root,))


def _sign(
    signer: Authority, lifetime: float = _DAY, now: float = _NOW, identity: Identity = _REVIEWS
) -> Issued:
    asked = authority.request(identity, authority.new_key(), lifetime)
    return asyncio.run(signer.sign(asked, now))


def test_a_leaf_has_the_spiffe_name_and_nothing_else() -> None:
    leaf, intermediate = x509.load_pem_x509_certificates(_sign(_authority()).chain)
    assert list(leaf.subject) == []
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert found.critical
    assert list(found.value) == [x509.UniformResourceIdentifier(_REVIEWS.uri)]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    limits = intermediate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (limits.ca, limits.path_length) == (True, 0)


def test_a_leaf_lives_as_long_as_asked_and_begins_a_little_before() -> None:
    issued = _sign(_authority(), lifetime=10)
    assert 0 <= issued.expires - (_NOW + 10) < 1
    assert 0 <= _NOW - authority.CLOCK_SKEW - issued.begins < 1


def test_no_certificate_outlives_the_one_above_it() -> None:
    signer = _authority(lifetime=100)
    root = signer.root_certificates[0]
    assert signer.issuer.not_valid_after_utc < root.not_valid_after_utc
    assert _sign(signer).expires == signer.issuer.not_valid_after_utc.timestamp()


def test_a_life_time_without_end_is_cut_to_what_x509_can_say() -> None:
    root = authority.make_root(authority.new_key(), "x" * 100, _NOW, 10**12)
    assert root.not_valid_after_utc.year == 9999


def test_openssl_verifies_the_chain(tmp_path: Path) -> None:
    signer = _authority()
    leaf, intermediate = x509.load_pem_x509_certificates(_sign(signer).chain)
    for name, certificate in (("leaf", leaf), ("intermediate", intermediate)):
        (tmp_path / name).write_bytes(authority.pem(certificate))
    (tmp_path / "root").write_bytes(signer.roots())
    checked = subprocess.run(
        (
            f"openssl verify -x509_strict -CAfile root -untrusted intermediate "
            f"-purpose sslserver -attime {int(_NOW)} leaf"
        ).split(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert checked.stdout.strip() == "leaf: OK", checked.stderr


@pytest.mark.parametrize(
    ("now", "reason"), [(_NOW + 400 * _DAY, "expired on"), (_NOW - _DAY, "clock")]
)
def test_an_authority_that_is_not_valid_signs_nothing(now: float, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        _sign(_authority(), now=now)


def test_another_trust_domain_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"trust domain 'cluster.local'"):
        _sign(_authority(), identity=Identity("elsewhere", "default", "a"))


def test_a_request_for_another_name_than_it_says_is_refused() -> None:
    other = authority.request(Identity("cluster.local", "a", "b"), authority.new_key(), 10)
    with pytest.raises(InvalidInputError, match="names something else"):
        asyncio.run(_authority().sign(Request(_REVIEWS, other.csr, 10), _NOW))


def test_an_improper_name_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="namespace"):
        authority.request(Identity("cluster.local", "a/sa/b", "c"), authority.new_key(), 10)


def test_keys_are_not_shown() -> None:
    assert "key=" not in repr(_authority()).replace("public_key=", "")


def test_the_chain_is_found_whatever_its_order() -> None:
    root_key, upper_key, lower_key = (authority.new_key() for _ in range(3))
    root = authority.make_root(root_key, "org", _NOW, _DAY)
    upper = _open_intermediate(upper_key, (root_key, root))
    lower = authority.make_intermediate(lower_key, "org", (upper_key, upper), _NOW, _DAY)
    # Two roots of one name, as while a root is replaced: the one that really signed is taken.
    namesake = authority.make_root(authority.new_key(), "org", _NOW, _DAY)
    assert authority.chain_of(lower, [root, upper], [namesake, root]) == (lower, upper)
    assert authority.chain_of(root, [], [root]) == ()
    with pytest.raises(InvalidInputError, match="neither a root nor in the chain"):
        authority.chain_of(lower, [], [root])
    with pytest.raises(InvalidInputError, match="neither a root nor in the chain"):
        authority.chain_of(lower, [upper], [namesake])


def _open_intermediate(
    key: ec.EllipticCurvePrivateKey,
    root: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
) -> x509.Certificate:
    """One that may have others below it."""
    begins = datetime.datetime.fromtimestamp(_NOW - 1, datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "upper")])
    return (
        x509.CertificateBuilder(root[1].subject, name, key.public_key(), 7)
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .sign(root[0], hashes.SHA256())
    )


@pytest.mark.parametrize("lifetime", [-1e300, -1, 0, 0.5, float("nan"), float("-inf")])
def test_no_certificate_has_ended_before_it_begins(lifetime: float) -> None:
    with pytest.raises(InvalidInputError, match="seconds"):
        _sign(_authority(), lifetime=lifetime)


@pytest.mark.parametrize("lifetime", [1e300, float("inf")])
def test_a_certificate_ends_with_its_authority_at_the_latest(lifetime: float) -> None:
    signer = _authority()
    assert _sign(signer, lifetime=lifetime).expires <= signer.issuer.not_valid_after_utc.timestamp()
