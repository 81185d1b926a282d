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

from meshd.errors import InvalidInputError
from meshd.identity import tokens
from meshd.identity.token_store import TokenStore

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
    with pytest.raises(InvalidInputError, match=r"incomplete|no token"):
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
def test_what_is_kept_does_not_hold_the_secret(token: tokens.Token) -> None:
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


# ---- on disk


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path, lambda: NOW)


def test_a_token_is_used_up_on_disk_when_redeem_returns(store: TokenStore, tmp_path: Path) -> None:
    text, _ = store.create(PIN, 60)
    store.redeem(text, "n")
    again = TokenStore(tmp_path, lambda: NOW)
    assert [len(record.used) for record in again.list()] == [1]
    with pytest.raises(InvalidInputError, match="used already, by node n"):
        again.redeem(text, "m")


def test_of_many_that_use_one_token_at_once_exactly_one_wins(tmp_path: Path) -> None:
    text, _ = TokenStore(tmp_path, lambda: NOW).create(PIN, 60)

    def slow_clock() -> float:
        """Asked between reading and writing: gives all others the time to come between."""
        time.sleep(0.002)
        return NOW

    def use(number: int) -> bool:
        try:
            TokenStore(tmp_path, slow_clock).redeem(text, f"n{number}")
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
        store.redeem(text, "n")
    assert store.redeem(other, "n").used
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
    store.certified("a", NOW + 30)
    text, _ = store.create(PIN, 60)
    with pytest.raises(InvalidInputError, match="has joined already"):
        store.redeem(text, "a")
    now[0] += 30
    assert store.redeem(text, "a").used
