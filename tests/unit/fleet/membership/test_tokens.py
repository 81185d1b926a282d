"""Tokens: what is read of one is what was written, and each is used as often as it may be."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meshd.base.errors import InvalidInputError, SystemRefusedError
from meshd.ca.authority import Issued
from meshd.fleet.membership import members, tokens
from meshd.fleet.membership.members import RivalError
from meshd.fleet.membership.token_store import TokenStore
from meshd.model.bounds import Bounds

PIN = bytes(range(32))
NOW = 1_000_000.0

randoms = st.binary(min_size=tokens.RANDOM_BYTES, max_size=tokens.RANDOM_BYTES)
made = st.builds(tokens.make, randoms, st.binary(min_size=32, max_size=32))


@given(made)
def test_a_token_is_read_as_it_was_written(token: tokens.Token) -> None:
    assert tokens.parse(token.text) == token
    assert tokens.parse(f" {token.text}\n") == token


@given(made, st.integers(0, 100))
def test_a_part_of_a_token_is_never_taken_for_one(token: tokens.Token, length: int) -> None:
    assume(length < len(token.text))
    with pytest.raises(InvalidInputError, match=r"incomplete|not a join token"):
        tokens.parse(token.text[:length])


@given(made, st.integers(7, 89), st.sampled_from("ABCabc012-_.=+/é\0 "))
def test_a_mistake_in_a_token_is_noticed(token: tokens.Token, at: int, letter: str) -> None:
    changed = token.text[:at] + letter + token.text[at + 1 :]
    assume(changed != token.text)
    with pytest.raises(InvalidInputError):
        tokens.parse(changed)


@given(st.text())
def test_any_other_text_is_refused_with_one_line(text: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        tokens.parse(text)
    assert "\n" not in str(error.value)


@given(made)
def test_errors_and_representations_do_not_show_the_secret(token: tokens.Token) -> None:
    assert token.secret.hex() not in repr(token)
    with pytest.raises(InvalidInputError) as error:
        tokens.parse(token.text[:-1])
    assert token.text[20:50] not in str(error.value)


@given(made)
def test_records_of_tokens_do_not_contain_the_secret(token: tokens.Token) -> None:
    kept = repr(tokens.record_of(token, NOW, 60))
    assert token.secret.hex() not in kept
    assert token.text[8:40] not in kept


def token(number: int = 1) -> tokens.Token:
    return tokens.make(bytes([number]) * tokens.RANDOM_BYTES, PIN)


def refused(records: list[tokens.Record], used: tokens.Token, node: str, now: float) -> str:
    with pytest.raises(InvalidInputError) as error:
        tokens.redeem(records, used, node, now)
    return str(error.value)


@given(st.integers(1, 5), st.lists(st.floats(0, 120), min_size=1, max_size=8))
def test_a_token_serves_as_often_as_it_may_until_it_expires(
    uses: int, moments: list[float]
) -> None:
    record = tokens.record_of(token(), NOW, 60, uses=uses)
    served = 0
    for moment in sorted(moments):
        fits = served < uses and moment < 60
        if fits:
            record = tokens.redeem([record], token(), "n", NOW + moment)
            served += 1
        else:
            refused([record], token(), "n", NOW + moment)
    assert len(record.used) == served


def test_each_reason_is_told_apart() -> None:
    record = tokens.record_of(token(), NOW, 60)
    used = tokens.redeem([record], token(), "first", NOW + 1)
    assert "was used already, by node first on 1970-01-12" in refused(
        [used], token(), "second", NOW + 2
    )
    assert "expired on" in refused([record], token(), "first", NOW + 60)
    assert "does not know this token" in refused([record], token(2), "first", NOW)
    bound = tokens.record_of(token(), NOW, 60, node="a")
    assert "is for node a, and this is node b" in refused([bound], token(), "b", NOW)
    assert tokens.redeem([bound], token(), "a", NOW).used[0].node == "a"


def test_a_right_id_with_a_wrong_secret_is_as_unknown_as_any() -> None:
    record = tokens.record_of(token(), NOW, 60)
    forged = tokens.Token(record.id, b"?" * 20, PIN)
    assert refused([record], forged, "n", NOW) == refused([record], token(2), "n", NOW)


def test_no_token_for_any_node_gives_the_name_of_one_that_has_joined() -> None:
    any_, bound = (tokens.record_of(token(), NOW, 60, node=node) for node in ("", "a"))
    with pytest.raises(InvalidInputError, match="a node a has joined already"):
        tokens.redeem([any_], token(), "a", NOW, joined=True)
    assert tokens.redeem([bound], token(), "a", NOW, joined=True).used


def test_a_token_that_a_node_used_is_of_no_use_once_that_is_removed() -> None:
    shared = tokens.record_of(token(), NOW, 60, uses=3)
    used = tokens.redeem([shared], token(), "a", NOW)
    (left,) = tokens.without([used], "b")
    assert tokens.state_of(left, NOW) == "valid"
    (left,) = tokens.without([used], "a")
    assert "was used already" in refused([left], token(), "another-name", NOW)


# ---- on disk


def issued(serial: int = 1, expires: float = NOW + 30) -> Issued:
    return Issued(b"", serial, NOW, expires)


def redeem(store: TokenStore, text: str, node: str, serial: int = 1) -> Issued:
    return store.join(text, node, lambda: issued(serial))


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path, lambda: NOW)


def test_a_token_is_used_up_on_disk_when_redeem_returns(store: TokenStore, tmp_path: Path) -> None:
    text, _ = store.create(PIN, 60)
    redeem(store, text, "n")
    again = TokenStore(tmp_path, lambda: NOW)
    assert [len(record.used) for record in again.list()] == [1]
    with pytest.raises(InvalidInputError, match="used already, by node n"):
        redeem(again, text, "m")


def test_of_many_that_use_one_token_at_once_exactly_one_wins(tmp_path: Path) -> None:
    text, _ = TokenStore(tmp_path, lambda: NOW).create(PIN, 60)

    def slow_clock() -> float:
        """Asked between reading and writing: gives all others the time to come between."""
        time.sleep(0.002)
        return NOW

    def use(number: int) -> bool:
        try:
            redeem(TokenStore(tmp_path, slow_clock), text, f"n{number}")
        except InvalidInputError:
            return False
        return True

    async def all_at_once() -> list[bool]:
        return await asyncio.gather(*(asyncio.to_thread(use, number) for number in range(32)))

    assert asyncio.run(all_at_once()).count(True) == 1


def test_a_deleted_token_is_gone_and_others_stay(store: TokenStore) -> None:
    text, record = store.create(PIN, 60)
    other, _ = store.create(PIN, 60)
    store.delete(record.id)
    with pytest.raises(InvalidInputError, match="does not know"):
        redeem(store, text, "n")
    assert redeem(store, other, "n")
    with pytest.raises(InvalidInputError, match="there is no token"):
        store.delete(record.id)


def test_ended_tokens_are_kept_for_a_while_and_then_forgotten(tmp_path: Path) -> None:
    now = [NOW]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    store = TokenStore(tmp_path, clock)
    store.create(PIN, 60)
    now[0] += 3600
    store.create(PIN, 60)
    assert [tokens.state_of(one, now[0]) for one in store.list()] == ["expired", "valid"]
    now[0] += tokens.KEPT_AFTER_END
    store.create(PIN, 60)
    assert len(store.list()) == 2


def test_the_file_is_for_its_owner_only_and_damage_is_told(
    store: TokenStore, tmp_path: Path
) -> None:
    store.create(PIN, 60)
    path = tmp_path / "tokens.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{")
    with pytest.raises(InvalidInputError, match=re.escape(f"{path}: damaged")):
        store.list()


def test_the_name_of_a_node_is_its_own_until_its_certificate_ends(tmp_path: Path) -> None:
    now = [NOW]
    store = TokenStore(tmp_path, lambda: now[0])
    first, _ = store.create(PIN, 60)
    redeem(store, first, "a")
    text, _ = store.create(PIN, 60)
    with pytest.raises(InvalidInputError, match="has joined already"):
        redeem(store, text, "a")
    now[0] += 30
    assert redeem(store, text, "a")


def test_a_failure_to_issue_or_write_does_not_use_up_the_token(
    store: TokenStore, tmp_path: Path
) -> None:
    text, _ = store.create(PIN, 60)

    def fails() -> Issued:
        raise InvalidInputError("no")

    with pytest.raises(InvalidInputError, match=r"^no$"):
        store.join(text, "a", fails)
    blocking = tmp_path / ".tokens.json.new"
    blocking.mkdir()
    with pytest.raises(SystemRefusedError, match=r"cannot be written: .*; nothing was changed"):
        redeem(store, text, "a")
    blocking.rmdir()
    assert not store.members()
    assert redeem(store, text, "a")


# ---- nodes


def joined(store: TokenStore, node: str, serial: int = 1, *, bounds: Bounds = ()) -> None:
    text, _ = store.create(PIN, 60, node=node, bounds=bounds)
    redeem(store, text, node, serial)


def is_admitted(store: TokenStore, node: str, serial: int) -> bool:
    try:
        store.admitted(node, f"{serial:x}")
    except InvalidInputError:
        return False
    return True


def test_a_node_is_admitted_by_its_own_certificate_only(store: TokenStore) -> None:
    joined(store, "a", 10)
    joined(store, "b", 11)
    assert is_admitted(store, "a", 10)
    assert not is_admitted(store, "a", 11)
    assert not is_admitted(store, "c", 10)


def test_a_renewal_whose_answer_was_lost_leaves_the_certificate_before_in_force(
    store: TokenStore,
) -> None:
    joined(store, "a", 1)
    for serial in (2, 3):
        store.renew("a", "1", lambda serial=serial: issued(serial))
    assert [is_admitted(store, "a", serial) for serial in (1, 2, 3)] == [True, False, True]
    store.renew("a", "3", lambda: issued(4))
    assert [is_admitted(store, "a", serial) for serial in (1, 3, 4)] == [False, True, True]


def came(store: TokenStore, serial: int, machine: str = "") -> str:
    """What the server is to say of it."""
    return store.attended("a", f"{serial:x}", machine).conflict


def test_an_earlier_certificate_is_taken_once_more_and_said_when_the_newer_one_was_shown(
    tmp_path: Path,
) -> None:
    now = [NOW]
    store = TokenStore(tmp_path, lambda: now[0])
    joined(store, "a", 1)
    assert came(store, 1) == ""
    store.renew("a", "1", lambda: issued(2))
    assert [came(store, serial) for serial in (1, 2, 1)] == ["", "", ""]
    now[0] += members.OVERLAP + 1
    assert "earlier certificate than it had shown" in came(store, 1)
    store.renew("a", "1", lambda: issued(3))
    assert came(store, 3) == ""
    with pytest.raises(RivalError, match="another machine has joined or has had its cert") as found:
        came(store, 2)
    assert "a machine with an earlier certificate of it was refused" in found.value.conflict
    assert "meshctl token create --node a" in str(found.value)


@pytest.mark.parametrize(
    ("said", "later", "taken"),
    [
        ("id.hw", "id.hw", True),
        ("id.hw", "other.hw", False),
        ("id.hw", "id.other", False),
        ("id.", "id.hw", True),
        (".hw", "other.hw", True),
        ("id.hw", ".", True),
        ("", "id.hw", True),
        ("id.hw", "", True),
    ],
)
def test_a_node_is_the_machine_that_came_first_by_its_name(
    store: TokenStore, said: str, later: str, taken: bool
) -> None:
    joined(store, "a", 1)
    assert came(store, 1, said) == ""
    if taken:
        assert came(store, 1, later) == ""
    else:
        with pytest.raises(RivalError, match="not the machine that joined") as found:
            came(store, 1, later)
        assert "another machine-id or hardware" in found.value.conflict
        joined(store, "a", 2)
        assert came(store, 2, later) == "", "who joins anew is taken as it is"


def test_what_a_machine_says_of_itself_later_is_kept_as_well(store: TokenStore) -> None:
    joined(store, "a", 1)
    came(store, 1, "id.")
    came(store, 1, "id.hw")
    store.renew("a", "1", lambda: issued(2))
    with pytest.raises(RivalError):
        came(store, 2, "id.other")


def test_taking_a_nodes_name_ends_the_other_nodes_certificates(store: TokenStore) -> None:
    joined(store, "a", 1)
    joined(store, "a", 2)
    assert [is_admitted(store, "a", serial) for serial in (1, 2)] == [False, True]


def test_a_node_that_was_removed_stays_so_and_comes_back_with_a_new_token_only(
    store: TokenStore, tmp_path: Path
) -> None:
    shared, _ = store.create(PIN, 60, uses=9)
    redeem(store, shared, "a", 1)
    joined(store, "b", 2)
    store.remove("a")
    again = TokenStore(tmp_path, lambda: NOW)
    assert [is_admitted(again, *who) for who in (("a", 1), ("b", 2))] == [False, True]
    with pytest.raises(InvalidInputError, match="it was removed; to come back it needs a new tok"):
        again.renew("a", "1", issued)
    for name in ("a", "another"):
        with pytest.raises(InvalidInputError, match="was used already"):
            redeem(again, shared, name, 3)
    joined(again, "a", 4)
    assert [is_admitted(again, "a", serial) for serial in (1, 4)] == [False, True]
    with pytest.raises(InvalidInputError, match="there is no node x: see meshctl node list"):
        again.remove("x")


def test_bounds_come_with_the_token_and_outlive_renewal(store: TokenStore) -> None:
    joined(store, "a", 1, bounds=("shop",))
    store.renew("a", "1", lambda: issued(2))
    assert store.admitted("a", "2").bounds == ("shop",)
    store.bind("a", ("bank", "shop"))
    store.renew("a", "2", lambda: issued(3))
    assert store.admitted("a", "3").bounds == ("bank", "shop")
    joined(store, "a", 4)
    assert store.admitted("a", "4").bounds == ()
    with pytest.raises(InvalidInputError, match="there is no node x"):
        store.bind("x", ())


def test_nodes_whose_certificate_has_ended_are_shown_for_a_while(tmp_path: Path) -> None:
    now = [NOW]
    store = TokenStore(tmp_path, lambda: now[0])
    joined(store, "a")
    now[0] = NOW + 30 + members.SHOWN_AFTER_END - 1
    store.create(PIN, 60)
    assert store.members().keys() == {"a"}
    now[0] += 1
    store.create(PIN, 60)
    assert not store.members()
