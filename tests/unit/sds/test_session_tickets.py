"""Sessions go on over a change of keys, and not for ever."""

from __future__ import annotations

import itertools

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from meshd.model.session_tickets import SESSION_TICKETS
from meshd.sds.session_tickets import SessionTickets
from meshd.sds.subscriber import Secret


def renewed(times: int) -> list[list[bytes]]:
    """The first bytes of the keys in each secret that is published."""
    published: list[Secret] = []
    numbers = itertools.count()

    def take(name: str, secret: Secret) -> None:
        assert name == SESSION_TICKETS
        published.append(secret)

    tickets = SessionTickets(take, lambda length: bytes([next(numbers)] * length))
    for _ in range(times):
        tickets.renew()
    assert len({one.version for one in published}) == times
    return [_keys(one) for one in published]


def _keys(secret: Secret) -> list[bytes]:
    message = secret_pb2.Secret.FromString(secret.body)
    assert message.name == SESSION_TICKETS
    keys = [one.inline_bytes for one in message.session_ticket_keys.keys]
    assert {len(key) for key in keys} == {80}
    return [key[:1] for key in keys]


def test_the_newest_key_comes_first_and_two_former_ones_are_still_read() -> None:
    assert renewed(4) == [
        [b"\0"],
        [b"\1", b"\0"],
        [b"\2", b"\1", b"\0"],
        [b"\3", b"\2", b"\1"],
    ]


def test_keys_are_not_shown() -> None:
    published: list[Secret] = []
    SessionTickets(lambda _, secret: published.append(secret), lambda length: b"k" * length).renew()
    assert "kkkk" not in repr(published)
