"""Certificates are renewed in time, each identity at its own moment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.ca.rotation import Failure, Held, plan, renewal
from meshd.model.workload import Identity

_A, _B, _C = (Identity("cluster.local", "default", name) for name in "abc")
_identities = st.sets(
    st.builds(
        Identity, st.just("cluster.local"), st.sampled_from("xyz"), st.text("ab", min_size=1)
    ),
    min_size=1,
    max_size=8,
)


@given(
    _identities,
    st.floats(2, 10**8),
    st.floats(0.1, 0.9),
    st.floats(0, 2 * 10**9),
    st.data(),
)
def test_nothing_expires_for_whoever_wakes_when_told(
    allowed: set[Identity], lifetime: float, renew_at: float, start: float, data: st.DataObject
) -> None:
    now = start
    held: dict[Identity, Held] = {}
    for _ in range(20):
        decided = plan(allowed, held, {}, now, renew_at)
        held |= {one: Held(now, now - 120, now + lifetime) for one in decided.issue}
        assert set(held) == allowed
        decided = plan(allowed, held, {}, now, renew_at)
        assert decided.issue == ()
        assert decided.wake is not None
        assert decided.wake > now
        assert all(one.expires > decided.wake for one in held.values())
        # It may be woken before its time, too.
        now = data.draw(st.floats(now, decided.wake)) if data.draw(st.booleans()) else decided.wake


@given(st.floats(2, 10**7), st.floats(0.1, 0.9), _identities)
def test_renewal_is_never_after_the_setting_and_differs_between_identities(
    lifetime: float, renew_at: float, identities: set[Identity]
) -> None:
    held = Held(1000.0, 880.0, 1000.0 + lifetime)
    for identity in identities:
        moment = renewal(identity, held, renew_at)
        latest = max(1000 + lifetime * renew_at, 1000.2)
        assert 1000 + lifetime * renew_at * 0.9 <= moment <= latest
        assert moment == renewal(identity, held, renew_at)
    assert renewal(_A, held, renew_at) != renewal(_B, held, renew_at) or lifetime * renew_at < 0.3


def test_identities_without_a_certificate_come_first_then_those_that_expire_first() -> None:
    held = {_A: Held(0, 0, 40), _B: Held(0, 0, 20)}
    assert plan([_A, _B, _C], held, {}, 30, 0.5).issue == (_C, _B, _A)


def test_a_revoked_identity_is_not_renewed() -> None:
    decided = plan([_A], {_A: Held(0, 0, 100), _B: Held(0, 0, 10)}, {}, 9, 0.5)
    assert decided.issue == ()
    assert decided.wake is not None
    assert decided.wake > 40


def test_a_failure_is_tried_again_later_and_later() -> None:
    pauses: list[float] = []
    for attempts in range(1, 12):
        decided = plan([_A], {}, {_A: Failure(100, attempts)}, 100, 0.5)
        assert decided.issue == ()
        assert decided.wake is not None
        pauses.append(decided.wake - 100)
        assert plan([_A], {}, {_A: Failure(100, attempts)}, decided.wake, 0.5).issue == (_A,)
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == 30


def test_nothing_is_ever_due_when_nobody_is_allowed() -> None:
    assert plan([], {}, {}, 5, 0.5).wake is None


def test_a_clock_that_was_set_back_brings_new_certificates_and_forgets_failures() -> None:
    held = {_A: Held(1000, 880, 2000)}
    assert plan([_A], held, {}, 500, 0.5).issue == (_A,)
    assert plan([_A], {}, {_A: Failure(1000, 9)}, 500, 0.5).issue == (_A,)


@pytest.mark.parametrize("remaining", [0.0, 0.001, -5.0])
def test_dwindling_life_times_do_not_make_it_spin(remaining: float) -> None:
    held = {_A: Held(100, 0, 100 + remaining)}
    decided = plan([_A], held, {}, 100.01, 0.5)
    assert decided.issue == ()
    assert decided.wake is not None
    assert decided.wake >= 100.19
