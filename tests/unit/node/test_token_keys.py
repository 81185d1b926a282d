"""Keys of issuers: which are asked for, kept, used while the issuer is away, and given up."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd import wire
from meshd.api.base import Object
from meshd.api.read import read_objects
from meshd.api.request_authentication.key_sets import key_set
from meshd.base.errors import UnreachableError
from meshd.node.token_keys import MOST, TokenKeys, Wanted, wanted
from tests import tokens
from tests.tokens import Key
from tests.waiting import eventually

ONE, TWO = (key_set(tokens.key_set(Key(name))).text for name in ("one", "two"))
URL = "https://a.test/keys"
REFRESH = 1200.0


def authentication(*rules: dict[str, str], namespace: str = "shop") -> Object:
    value = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "t", "namespace": namespace},
        "spec": {"jwtRules": list(rules)},
    }
    (read,) = read_objects(json.dumps(value), "t.yaml")
    return read.object


AT_URL = authentication({"issuer": "a", "jwksUri": URL})


class World:
    """A store, an issuer, and what is told of their keys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.objects: list[Object] = [AT_URL]
        self.answers: dict[str, wire.FetchedKeys | None] = {URL: wire.FetchedKeys(ONE)}
        self.asked: list[tuple[str, float]] = []
        self.told = 0

    def made(self, refresh: float = REFRESH) -> TokenKeys:
        return TokenKeys(self.path, lambda: self.objects, self._fetch, self._tell, refresh)

    async def _fetch(self, url: str, seconds: float) -> wire.FetchedKeys:
        self.asked.append((url, seconds))
        if (answer := self.answers.get(url)) is None:
            raise UnreachableError("the supervisor is away")
        return answer

    def _tell(self) -> None:
        self.told += 1

    def steps(self, keys: TokenKeys, count: int = 1) -> None:
        async def take() -> None:
            for _ in range(count):
                await keys.step()

        asyncio.run(take())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield World(tmp_path / "token_keys.json")


def test_urls_are_those_of_rules_without_keys() -> None:
    found = wanted(
        [
            authentication(
                {"issuer": "a", "jwksUri": URL, "timeout": "2s"},
                {"issuer": "https://b.test/x/"},
                {"issuer": "c", "jwks": ONE},
            ),
            AT_URL,
        ]
    )
    other = "https://b.test/x/.well-known/openid-configuration"
    assert found == {URL: Wanted("shop", 5.0), other: Wanted("shop", 5.0)}
    slow = {"issuer": "a", "jwksUri": URL, "timeout": "1h"}
    assert wanted([authentication(slow)]) == {URL: Wanted("shop", 30.0)}


def test_keys_are_fetched_once_until_they_are_due(world: World) -> None:
    keys = world.made()
    assert keys.keys == {}
    world.steps(keys, 3)
    assert (keys.keys, keys.problems) == ({URL: ONE}, "")
    assert world.asked == [(URL, 5.0)]
    assert world.told == 1


def test_keys_stay_while_the_issuer_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = world.made()
    world.steps(keys)
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    for answer, why in (
        (wire.FetchedKeys(problem="it answers 500"), "it answers 500"),
        (wire.FetchedKeys("{}"), "no JSON Web Key Set"),
        (wire.FetchedKeys(), "no JSON Web Key Set"),
        (None, "the supervisor is away"),
    ):
        world.answers[URL] = answer
        now[0] += 1e9
        world.steps(keys)
        assert keys.keys == {URL: ONE}
        assert why in keys.problems
        assert "are used" in keys.problems
    world.answers[URL] = wire.FetchedKeys(TWO)
    now[0] += 1e9
    world.steps(keys)
    assert (keys.keys, keys.problems) == ({URL: TWO}, "")


def test_keys_that_never_came_are_told(world: World) -> None:
    world.answers[URL] = None
    keys = world.made()
    world.steps(keys, 2)
    assert "no token of it is believed" in keys.problems
    assert (keys.keys, world.told, len(world.asked)) == ({}, 1, 1)


def test_what_nobody_names_any_more_is_given_up(world: World) -> None:
    keys = world.made()
    world.steps(keys)
    world.objects.clear()
    keys.look()
    assert (keys.keys, keys.problems) == ({}, "")
    world.steps(keys)
    assert len(world.asked) == 1


def kept(keys: TokenKeys, path: Path) -> None:
    async def write() -> None:
        task = asyncio.create_task(keys.run())
        await asyncio.to_thread(eventually, path.exists, "the keys are written")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(write())


def test_keys_outlive_the_process(world: World) -> None:
    first = world.made()
    world.steps(first)
    kept(first, world.path)
    world.answers[URL] = None
    second = world.made()
    assert second.keys == {URL: ONE}
    world.steps(second)
    assert len(world.asked) == 1, "they are not due yet"


def test_a_damaged_record_is_put_aside(world: World) -> None:
    world.path.write_text("{")
    keys = world.made()
    assert keys.keys == {}
    world.steps(keys)
    assert keys.keys == {URL: ONE}


def test_kept_keys_are_judged_as_those_that_come(world: World) -> None:
    held = {URL: {"keys": '{"keys": [{"kty": "oct"}]}', "since": 0}}
    world.path.write_text(json.dumps({"held": held}))
    assert world.made().keys == {}


def test_a_namespace_has_a_number_of_urls_asked_and_keeps_nobody_else_from_it(
    world: World,
) -> None:
    rules = [{"issuer": "a", "jwksUri": f"https://a.test/{number}"} for number in range(MOST + 2)]
    greedy = [authentication(*rules[at : at + 60]) for at in range(0, len(rules), 60)]
    other = authentication({"issuer": "z", "jwksUri": "https://z.test/keys"}, namespace="other")
    world.objects[:] = [*greedy, other]
    keys = world.made()
    world.steps(keys)
    assert len(world.asked) == MOST + 1
    assert ("https://z.test/keys", 5.0) in world.asked
    assert "2 URLs of keys are not asked" in keys.problems


def test_issuers_that_do_not_answer_delay_those_of_their_own_namespace_alone(
    world: World,
) -> None:
    slow = [{"issuer": "a", "jwksUri": f"https://a.test/{number}"} for number in range(9)]
    other = authentication({"issuer": "z", "jwksUri": URL}, namespace="other")
    world.objects[:] = [authentication(*slow), other]

    async def take() -> None:
        hangs, came, waiting = asyncio.Event(), asyncio.Event(), list[str]()

        async def fetch(url: str, _: float) -> wire.FetchedKeys:
            if url != URL:
                waiting.append(url)
                await hangs.wait()
            return wire.FetchedKeys(ONE)

        keys = TokenKeys(world.path, lambda: world.objects, fetch, came.set, REFRESH)
        step = asyncio.create_task(keys.step())
        await came.wait()
        assert (keys.keys, len(waiting)) == ({URL: ONE}, 1)
        hangs.set()
        await step
        assert len(keys.keys) == 10

    asyncio.run(take())
