"""What an agent makes of resources that it cannot use: a rule that was to close opens nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshd.api.destination_rule.types import DestinationRule
from meshd.api.write import api_version
from meshd.config.store import Store
from meshd.fleet.agent.inbox import Held, Inbox
from meshd.fleet.server import mcp
from meshd.node.agent import closed_hosts, decode

if TYPE_CHECKING:
    from pathlib import Path


VERSION = api_version(DestinationRule)
URL = mcp.type_url(VERSION, DestinationRule.KIND)


def rule(**spec: Any) -> bytes:
    value = {
        "apiVersion": VERSION,
        "kind": "DestinationRule",
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": spec,
    }
    return mcp.encode(value).body


def told(*bodies: bytes) -> Inbox:
    inbox = Inbox(decode)
    for number, body in enumerate(bodies):
        inbox.take(URL, [("shop/db", Held(str(number), body))])
    return inbox


UNUSABLE = rule(host="db", trafficPolicy={"tls": {"mode": "NONSENSE"}})


def test_a_rule_that_was_never_good_closes_what_it_is_about() -> None:
    assert closed_hosts(told(UNUSABLE).never_good(URL)) == (("shop", "db"),)


def test_the_last_good_version_stays_and_closes_nothing() -> None:
    inbox = told(rule(host="db"), UNUSABLE)
    assert closed_hosts(inbox.never_good(URL)) == ()
    assert list(inbox.values(URL)) == ["shop/db"]


def test_what_says_nothing_of_itself_closes_nothing() -> None:
    bodies = (b"", b"\xff", rule(), rule(host=7), rule(host=""))
    assert closed_hosts({str(number): body for number, body in enumerate(bodies)}) == ()


def test_what_is_closed_is_told_to_who_follows(tmp_path: Path) -> None:
    store = Store(tmp_path / "config.d", tmp_path / "lib")
    changes: list[int] = []
    store.subscribe(lambda: changes.append(1))
    store.follow({}, (("shop", "db"),))
    assert (store.closed, len(changes)) == ((("shop", "db"),), 1)
    store.follow({})
    assert (store.closed, len(changes)) == ((), 2)
