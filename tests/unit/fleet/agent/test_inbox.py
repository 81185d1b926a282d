"""The last good version of everything stays, whatever comes."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshd.base.attempts import Attempts
from meshd.base.errors import InvalidInputError
from meshd.fleet.agent.inbox import Held, Inbox

URL = "test/v1/Thing"


def decode(type_url: str, name: str, body: bytes) -> str:
    if body.startswith(b"bad"):
        raise InvalidInputError(f"{body.decode()} is no value")
    return body.decode()


def taken(*things: tuple[str, str]) -> Inbox:
    inbox = Inbox(decode)
    inbox.take(URL, [(name, Held(f"v-{body}", body.encode())) for name, body in things])
    return inbox


def test_a_resource_that_comes_is_there_with_its_version() -> None:
    inbox = taken(("a", "one"), ("b", "two"))
    assert dict(inbox.values(URL)) == {"a": "one", "b": "two"}
    assert inbox.versions(URL) == {"a": "v-one", "b": "v-two"}


def test_a_bad_one_is_refused_by_name_and_keeps_nobody_else_out() -> None:
    inbox = taken(("a", "one"), ("b", "two"))
    changed, reason = inbox.take(URL, [("a", Held("9", b"bad")), ("b", Held("9", b"new"))])
    assert (changed, reason) == (True, "a: bad is no value")
    assert dict(inbox.values(URL)) == {"a": "one", "b": "new"}
    assert inbox.versions(URL) == {"a": "refused", "b": "9"}
    assert inbox.refused == {(URL, "a"): "bad is no value"}


def test_a_good_version_or_a_removal_ends_the_refusal() -> None:
    inbox = taken(("a", "bad"), ("b", "bad"))
    inbox.take(URL, [("a", Held("2", b"good"))], ["b"])
    assert inbox.refused == {}
    assert dict(inbox.values(URL)) == {"a": "good"}


def test_only_what_differs_is_a_change() -> None:
    inbox = taken(("a", "one"))
    assert inbox.take(URL, [("a", Held("v-one", b"one"))]) == (False, "")
    assert inbox.take(URL, [], ["unknown"]) == (False, "")
    assert inbox.take(URL, [], ["a"]) == (True, "")


bodies = st.sampled_from(["one", "two", "bad"])
steps = st.lists(st.tuples(st.sampled_from("abc"), bodies | st.none()), max_size=12)


@given(steps)
def test_resources_are_read_from_disk_as_they_were_written(
    changes: list[tuple[str, str | None]],
) -> None:
    inbox = Inbox(decode)
    good: dict[str, str] = {}
    for name, body in changes:
        if body is None:
            inbox.take(URL, [], [name])
            good.pop(name, None)
        else:
            inbox.take(URL, [(name, Held(body, body.encode()))])
            good |= {name: body} if body != "bad" else {}
    again = Inbox(decode)
    assert again.load(inbox.dump()) == ()
    assert dict(again.values(URL)) == dict(inbox.values(URL)) == good
    assert again.versions(URL) == inbox.versions(URL)


@given(st.binary(max_size=60))
@example(b"\x81\xa2\x00\x80")
def test_damage_on_disk_is_told_and_nothing_is_taken(data: bytes) -> None:
    inbox = Inbox(decode)
    try:
        inbox.load(data)
    except InvalidInputError:
        assert dict(inbox.values(URL)) == {}


def test_what_an_older_version_kept_and_this_one_cannot_read_is_named() -> None:
    keeper = Inbox(lambda _url, _name, _body: "anything")
    keeper.take(URL, [("a", Held("1", b"bad")), ("b", Held("1", b"fine"))])
    inbox = Inbox(decode)
    assert inbox.load(keeper.dump()) == ("a: bad is no value",)
    assert dict(inbox.values(URL)) == {"b": "fine"}
    with pytest.raises(InvalidInputError, match="damaged"):
        inbox.load(b"\xc1")


def test_what_a_process_died_of_is_refused_and_the_version_before_stays(tmp_path: Path) -> None:
    def taken(body: bytes, *, survives: bool) -> Inbox:
        attempts = Attempts(tmp_path / "attempts.json")
        inbox = Inbox(lambda _url, _name, body: body, attempts)
        if kept:
            inbox.load(kept[-1])
        inbox.take("t/Kind", [("a", Held(body.decode(), body))])
        if survives:
            attempts.done()
        return inbox

    kept: list[bytes] = []
    kept.append(taken(b"good", survives=True).dump())
    for _ in range(3):
        assert taken(b"bad", survives=False).values("t/Kind") == {"a": b"bad"}
    inbox = taken(b"bad", survives=True)
    assert inbox.values("t/Kind") == {"a": b"good"}
    (reason,) = inbox.refused.values()
    assert "died 3 times" in reason
    assert taken(b"better", survives=True).values("t/Kind") == {"a": b"better"}


def test_both_versions_are_known_of_what_is_kept_unless_processes_died_of_the_newer_one(
    tmp_path: Path,
) -> None:
    inbox = taken(("a", "one"), ("b", "bad"))
    assert inbox.kept(URL) == {}
    inbox.take(URL, [("a", Held("2", b"bad 2"))])
    again = Inbox(decode)
    again.load(inbox.dump())
    assert inbox.kept(URL) == again.kept(URL) == {"a": (b"one", b"bad 2")}
    for _ in range(3):
        Attempts(tmp_path / "attempts.json").begin(
            {"Thing a": (blake2b(b"bad 2", digest_size=8).hexdigest(), b"")}
        )
    deadly = Inbox(decode, Attempts(tmp_path / "attempts.json"))
    deadly.load(inbox.dump())
    assert deadly.kept(URL) == {"a": (b"one", None)}
    deadly.take(URL, [("a", Held("v-one", b"one"))])
    assert deadly.kept(URL) == {}


def test_what_was_refused_and_never_good_is_known_over_restarts() -> None:
    inbox = taken(("a", "one"), ("b", "bad"))
    inbox.take(URL, [("a", Held("2", b"bad"))])
    again = Inbox(decode)
    again.load(inbox.dump())
    for one in (inbox, again):
        assert one.never_good(URL) == {"b": b"bad"}
        assert one.refused.keys() == {(URL, "a"), (URL, "b")}
    again.take(URL, [], ["b"])
    assert again.never_good(URL) == {}


def test_the_server_is_to_tell_again_of_whatever_was_refused_or_that_it_is_gone() -> None:
    inbox = taken(("a", "one"), ("b", "bad"))
    inbox.take(URL, [("a", Held("2", b"bad"))])
    again = Inbox(decode)
    again.load(inbox.dump())
    for one in (inbox, again):
        assert one.versions(URL) == {"a": "refused", "b": "refused"}
        assert one.versions("test/v1/Other") == {}


def test_the_end_of_a_refusal_is_a_change() -> None:
    inbox = taken(("a", "one"), ("b", "bad"))
    assert inbox.take(URL, [], ["b"]) == (True, "")
    inbox.take(URL, [("a", Held("2", b"bad"))])
    assert inbox.take(URL, [("a", Held("v-one", b"one"))]) == (True, "")


def test_a_refused_resource_is_judged_again_after_a_restart() -> None:
    inbox = taken(("a", "bad"))
    lenient = Inbox(lambda _url, _name, body: body.decode())
    lenient.load(inbox.dump())
    assert (dict(lenient.values(URL)), lenient.refused) == ({"a": "bad"}, {})
    strict = Inbox(decode)
    strict.load(inbox.dump())
    assert strict.never_good(URL) == {"a": b"bad"}


class _Before(msgspec.Struct, forbid_unknown_fields=True):
    """The state of a version that knew nothing of refusals."""

    resources: dict[str, dict[str, Held]]


class _Between(_Before, forbid_unknown_fields=True):
    """The state of a version that kept refusals in a field of their own."""

    refused: dict[str, dict[str, Held]]


def test_an_older_version_reads_what_it_knows_of_the_state() -> None:
    inbox = taken(("a", "one"), ("b", "bad"))
    state = msgspec.msgpack.decode(inbox.dump(), type=_Before)
    assert state.resources[URL] == {"a": Held("v-one", b"one")}


def test_the_state_of_an_older_version_is_read() -> None:
    held, refused = {"a": Held("1", b"one")}, {"b": Held("1", b"bad")}
    inbox = Inbox(decode)
    assert inbox.load(msgspec.msgpack.encode(_Before({URL: held}))) == ()
    assert inbox.refused == {}
    inbox.load(msgspec.msgpack.encode(_Between({URL: held}, {URL: refused})))
    assert dict(inbox.values(URL)) == {"a": "one"}
    assert inbox.never_good(URL) == {"b": b"bad"}


@pytest.mark.parametrize("prefix", ["", "refused:", "refused:refused:"])
def test_a_refusal_of_an_older_version_ends_with_the_resource(prefix: str) -> None:
    refused = {f"{prefix}{URL}": {"b": Held("1", b"bad")}, f"{prefix}old": {"c": Held("1", b"bad")}}
    inbox = Inbox(decode, types=(URL,))
    inbox.load(msgspec.msgpack.encode(_Between({"old": {"d": Held("1", b"one")}}, refused)))
    assert inbox.refused.keys() == {(URL, "b")}
    assert inbox.take(URL, (), ["b"])[0]
    assert inbox.refused == {}
    assert msgspec.msgpack.decode(inbox.dump()) == {"resources": {URL: {}}}


def test_a_resource_being_decoded_is_not_struck_off_by_a_round_without_it(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "attempts.json")
    inbox = Inbox(decode, attempts)
    resources = [("a", Held("1", b"one"))]
    inbox.begin(URL, resources)
    assert not attempts.working
    assert inbox.keep(URL, inbox.decoded(URL, resources)) == (True, "")
    assert not attempts.working  # it is kept, and not in force yet
    inbox.used()
    assert {name for name, _ in attempts.working} == {"Thing a"}


def test_decoding_changes_nothing_until_its_result_is_kept(tmp_path: Path) -> None:
    inbox = Inbox(decode, Attempts(tmp_path / "attempts.json"))
    resources = [("a", Held("1", b"one")), ("b", Held("1", b"bad"))]
    inbox.begin(URL, resources)
    decoded = inbox.decoded(URL, resources)
    assert (dict(inbox.values(URL)), inbox.refused) == ({}, {})
    inbox.keep(URL, decoded)
    assert (dict(inbox.values(URL)), set(inbox.refused)) == ({"a": "one"}, {(URL, "b")})


def test_a_resource_is_in_hand_until_decoded_even_after_its_stream_has_ended(
    tmp_path: Path,
) -> None:
    attempts = Attempts(tmp_path / "attempts.json")
    inbox, things = Inbox(decode, attempts), [("a", Held("1", b"one")), ("b", Held("1", b"two"))]
    begun = inbox.begin(URL, things)
    assert not attempts.working
    again = inbox.begin(URL, things[:1])  # it comes once more, over another stream
    inbox.drop(begun)
    assert attempts.in_hand == again
    assert not attempts.working
    inbox.keep(URL, inbox.decoded(URL, things[:1]))
    inbox.used()
    assert attempts.working == again
    attempts.done()
    assert not (tmp_path / "attempts.json").exists()


def test_using_a_resource_does_not_drop_its_successor(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "attempts.json")
    inbox, newer = Inbox(decode, attempts), [("a", Held("2", b"two"))]
    inbox.take(URL, [("a", Held("1", b"one"))])
    begun = inbox.begin(URL, newer)
    inbox.used()  # of the first, while the second is being decoded
    assert attempts.in_hand == begun
    assert not attempts.working
    inbox.keep(URL, inbox.decoded(URL, newer))
    inbox.used()
    assert attempts.working == begun


def test_a_dump_is_of_the_moment_at_which_it_began() -> None:
    inbox = Inbox(decode)
    inbox.take(URL, [("a", Held("1", b"one")), ("b", Held("1", b"bad"))])
    before, dump = inbox.dump(), inbox.dumping()
    inbox.take(URL, [("a", Held("2", b"two")), ("b", Held("2", b"two"))])
    assert dump() == before != inbox.dump()


def test_a_version_in_force_stays_noted_if_the_next_one_never_takes_effect(tmp_path: Path) -> None:
    attempts = Attempts(path := tmp_path / "attempts.json")
    inbox = Inbox(decode, attempts)
    versions = [[("a", Held(version, version.encode()))] for version in ("1", "2", "3")]
    inbox.take(URL, versions[0])
    inbox.used()
    first = attempts.working
    for begun in ([1], [1, 2]):
        decoding = [inbox.begin(URL, versions[each]) for each in begun]
        assert not attempts.working
        for one in decoding:
            inbox.drop(one)
        assert attempts.working == first
    inbox.drop(inbox.begin(URL, versions[1]))
    found = Attempts(path)
    assert found.knows("Thing a", blake2b(b"1", digest_size=8).hexdigest())


def test_what_has_proven_harmless_meanwhile_is_not_noted_again(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "attempts.json")
    inbox = Inbox(decode, attempts)
    inbox.take(URL, [("a", Held("1", b"one"))])
    inbox.used()
    first = attempts.working
    second = inbox.begin(URL, [("a", Held("2", b"two"))])
    attempts.proven(first)
    assert attempts.in_hand == second
    inbox.drop(second)
    assert not (tmp_path / "attempts.json").exists()


def test_a_replaced_record_is_not_noted_again(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "attempts.json")
    inbox = Inbox(decode, attempts)
    for version in ("1", "2"):
        inbox.take(URL, [("a", Held(version, version.encode()))])
    inbox.used()
    second = attempts.working
    third = inbox.begin(URL, [("a", Held("3", b"three"))])
    inbox.drop(third)
    assert attempts.working == second
    attempts.proven(second)
    assert not (tmp_path / "attempts.json").exists()
