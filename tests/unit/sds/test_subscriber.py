"""What one SDS client is told, in both variants of the protocol."""

from __future__ import annotations

import dataclasses

from meshd.sds.subscriber import Secret, Secrets, Subscriber
from meshd.xds.exchange import Request
from meshd.xds.resources import SECRET

_A1, _A2, _B1 = Secret("a1", b"A1"), Secret("a2", b"A2"), Secret("b1", b"B1")


def _secrets(*awaited: str, **served: Secret) -> Secrets:
    return Secrets(served, frozenset({*awaited, *served}))


def _told(subscriber: Subscriber, secrets: Secrets) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """What is sent now, which the client accepts and which ends it."""
    response = subscriber.next(secrets)
    assert subscriber.next(secrets) is None
    if response is None:
        return {}, ()
    subscriber.receive(Request(SECRET, _asked(subscriber), nonce=response.nonce))
    assert subscriber.next(secrets) is None
    return {one.name: one.body for one in response.resources}, response.removed


def _asked(subscriber: Subscriber) -> tuple[str, ...]:
    """Each request of the older variant lists all names again."""
    return tuple(subscriber.names) if subscriber.whole else ()


def _subscriber(*names: str, **has: str) -> Subscriber:
    subscriber = Subscriber()
    subscriber.receive(Request(SECRET, subscribe=names, initial_versions=has))
    return subscriber


def test_secrets_in_files_are_sent_alone() -> None:
    """So that a client which refuses one of them refuses nothing else."""
    files = {f"file-root:/etc/{name}": Secret("1", name.encode()) for name in ("x", "y")}
    subscriber = _subscriber("a", *files)
    secrets = dataclasses.replace(_secrets(a=_A1), files=files)
    sent: list[list[str]] = []
    while response := subscriber.next(secrets):
        sent.append([one.name for one in response.resources])
        subscriber.receive(Request(SECRET, nonce=response.nonce))
    assert sent == [["a"], ["file-root:/etc/x"], ["file-root:/etc/y"]]


def test_existing_secrets_are_sent_and_others_are_removed() -> None:
    assert _told(_subscriber("a", "b"), _secrets(a=_A1)) == ({"a": b"A1"}, ("b",))


def test_only_what_was_asked_for_is_sent() -> None:
    assert _told(_subscriber("a"), _secrets(a=_A1, b=_B1)) == ({"a": b"A1"}, ())


def test_a_name_that_is_awaited_is_held_until_it_is_there() -> None:
    subscriber = _subscriber("a")
    assert _told(subscriber, _secrets("a")) == ({}, ())
    assert _told(subscriber, _secrets(a=_A1)) == ({"a": b"A1"}, ())


def test_a_late_secret_is_denied_to_proxies_without_one_until_it_exists() -> None:
    subscriber = _subscriber("a")
    assert _told(subscriber, _secrets("a")) == ({}, ())
    late = dataclasses.replace(_secrets("a"), late=frozenset("a"))
    assert _told(subscriber, late) == ({}, ("a",))
    assert _told(subscriber, _secrets("a")) == ({}, ())
    assert _told(subscriber, late) == ({}, ())
    assert _told(subscriber, _secrets(a=_A1)) == ({"a": b"A1"}, ())


def test_a_proxy_keeps_a_secret_whose_renewal_is_late() -> None:
    late = dataclasses.replace(_secrets("a"), late=frozenset("a"))
    assert _told(_subscriber("a", a="a0"), late) == ({}, ())
    subscriber = _subscriber("a")
    assert _told(subscriber, _secrets(a=_A1)) == ({"a": b"A1"}, ())
    assert _told(subscriber, late) == ({}, ())


def test_no_secret_is_denied_before_the_allowed_identities_are_known() -> None:
    subscriber = _subscriber("a", "b", a="a0")
    assert _told(subscriber, Secrets({"b": _B1})) == ({"b": b"B1"}, ())
    assert _told(subscriber, _secrets(b=_B1)) == ({}, ("a",))


def test_a_removed_name_is_sent_when_it_exists_again() -> None:
    subscriber = _subscriber("a")
    assert _told(subscriber, _secrets()) == ({}, ("a",))
    assert _told(subscriber, _secrets(a=_A1)) == ({"a": b"A1"}, ())
    assert _told(subscriber, _secrets()) == ({}, ("a",))


def test_a_renewed_secret_is_pushed() -> None:
    subscriber = _subscriber("a")
    assert _told(subscriber, _secrets(a=_A1)) == ({"a": b"A1"}, ())
    assert _told(subscriber, _secrets(a=_A2)) == ({"a": b"A2"}, ())


def test_what_a_client_brings_from_an_earlier_stream_is_not_sent_again() -> None:
    assert _told(_subscriber("a", "b", a="a1", b="b0"), _secrets(a=_A1, b=_B1)) == (
        {"b": b"B1"},
        (),
    )


def test_a_proxy_that_asks_again_is_answered_again() -> None:
    subscriber = _subscriber("a")
    _told(subscriber, _secrets(a=_A1))
    subscriber.receive(Request(SECRET, subscribe=("a",)))
    assert _told(subscriber, _secrets(a=_A1)) == ({"a": b"A1"}, ())


def test_a_proxy_that_unsubscribes_hears_no_more() -> None:
    subscriber = _subscriber("a")
    _told(subscriber, _secrets(a=_A1))
    subscriber.receive(Request(SECRET, unsubscribe=("a",)))
    assert _told(subscriber, _secrets(a=_A2)) == ({}, ())


def test_a_refused_secret_is_named_and_not_sent_again_until_it_changes() -> None:
    subscriber = _subscriber("a")
    response = subscriber.next(_secrets(a=_A1))
    assert response is not None
    refusal = subscriber.receive(Request(SECRET, nonce=response.nonce, error="no good"))
    assert refusal is not None
    assert (refusal.names, refusal.reason) == (("a",), "no good")
    assert _told(subscriber, _secrets(a=_A1)) == ({}, ())
    assert _told(subscriber, _secrets(a=_A2)) == ({"a": b"A2"}, ())


def test_an_answer_to_nothing_that_was_sent_is_no_refusal() -> None:
    subscriber = _subscriber("a")
    assert subscriber.receive(Request(SECRET, nonce="77", error="what")) is None


def test_the_older_variant_lists_all_that_exists_at_each_change() -> None:
    subscriber = Subscriber(whole=True)
    subscriber.receive(Request(SECRET, subscribe=("a", "b")))
    assert _told(subscriber, _secrets(a=_A1))[0] == {"a": b"A1"}
    assert _told(subscriber, _secrets(a=_A1, b=_B1))[0] == {"a": b"A1", "b": b"B1"}
    subscriber.receive(Request(SECRET, subscribe=("a", "b"), nonce="2"))
    assert _told(subscriber, _secrets(a=_A1, b=_B1)) == ({}, ())
    subscriber.receive(Request(SECRET, subscribe=("b",), nonce="2"))
    assert _told(subscriber, _secrets(a=_A2, b=_B1)) == ({}, ())


def test_the_older_variant_says_nothing_of_what_never_existed() -> None:
    subscriber = Subscriber(whole=True)
    subscriber.receive(Request(SECRET, subscribe=("a",)))
    assert _told(subscriber, _secrets()) == ({}, ())
    assert _told(subscriber, _secrets(a=_A1))[0] == {"a": b"A1"}


def test_keys_are_not_shown() -> None:
    assert "A1" not in repr(_secrets(a=_A1))


def test_nobody_is_given_all_there_is() -> None:
    for whole in (False, True):
        subscriber = Subscriber(whole=whole)
        subscriber.receive(Request(SECRET))
        subscriber.receive(Request(SECRET, subscribe=("*",)))
        assert _told(subscriber, _secrets(a=_A1)) == ({}, ())


def test_a_refusal_is_about_all_of_a_response_which_is_not_sent_in_parts() -> None:
    """Envoy accepts a secret that it has just refused."""
    subscriber = _subscriber("a", "b")
    response = subscriber.next(_secrets(a=_A1, b=_B1))
    assert response is not None
    refused = subscriber.receive(Request(SECRET, nonce=response.nonce, error="no good"))
    assert refused is not None
    assert set(refused.names) == {"a", "b"}
    assert _told(subscriber, _secrets(a=_A1, b=_B1)) == ({}, ())
    assert _told(subscriber, _secrets(a=_A2, b=_B1)) == ({"a": b"A2"}, ())


def test_changes_before_the_clients_answer_are_sent_after_it() -> None:
    subscriber = _subscriber("a")
    response = subscriber.next(_secrets(a=_A1))
    assert response is not None
    assert subscriber.next(_secrets(a=_A2)) is None
    subscriber.receive(Request(SECRET, nonce=response.nonce))
    assert _told(subscriber, _secrets(a=_A2)) == ({"a": b"A2"}, ())
