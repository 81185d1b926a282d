from __future__ import annotations

from meshd.wire import CertificateState
from meshd.workloads.certified import Certified

_TOLD = Certified().telling(
    [
        CertificateState("a", 30.0, "1"),
        CertificateState("b", 20.0, "2"),
        CertificateState("c", 10.0, "3"),
        CertificateState("d", 40.0, "", "the authority does not answer"),
    ]
)


def test_a_certificate_that_is_missing_or_has_expired_is_none() -> None:
    assert _TOLD.valid(10.0) == {"a", "b"}
    assert _TOLD.next_expiry(10.0) == 20.0
    assert (_TOLD.valid(30.0), _TOLD.next_expiry(30.0)) == (frozenset(), None)


def test_a_certificate_counts_until_it_expires_when_its_role_begins_anew_without_it() -> None:
    later = _TOLD.telling([CertificateState("b", 60.0, "4")])
    assert later.valid(10.0) == {"a", "b"}
    assert later.valid(30.0) == {"b"}
    failed = _TOLD.telling([CertificateState("a", 0.0, "", "the authority does not answer")])
    assert failed.valid(10.0) == {"a", "b"}


def test_an_identity_that_was_given_up_has_no_certificate_when_it_comes_back() -> None:
    back = _TOLD.allowing({"b", "c", "d"}).allowing({"a", "b", "c", "d"})
    assert back.valid(10.0) == {"b"}
    assert "a" not in back.told


def test_what_was_told_is_known_with_or_without_a_certificate() -> None:
    assert _TOLD.told == {"a", "b", "c", "d"}
    assert _TOLD.allowing(["a", "b", "c", "d", "e"]) is _TOLD
