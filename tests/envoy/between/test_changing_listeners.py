"""While a proxy changes over from one configuration to the next, listener by listener, connections
to services of both arrive.

What a second Service says of the ports of the server, and of others, changes. Each state is one in
which Envoy may be for a moment: some of its listeners are the former ones, some the later.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import pytest

from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.xds.resources import LISTENER, Resource, Resources, difference
from tests.envoy.between.application import Application
from tests.envoy.between.conftest import ADDRESS
from tests.envoy.between.mesh import Mesh, answer
from tests.envoy.between.test_authorization import MANIFEST, REQUEST
from tests.envoy.between.test_authorization_changes import SERVED, second, words

NAMES = ("client", "server")
STATES = 6
"""For each change."""
FORGED = f"{REQUEST.format('/')}\nx-forwarded-client-cert: By=forged;URI=spiffe://cluster.local/x"


@pytest.fixture(scope="module", params=[False, True], ids=["network", "short way"])
def short_way(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def mesh(short_way: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("listeners"), NAMES) as made:
        made.publish({Pool.TRAFFIC: packed(made, "", short_way=short_way)})
        for name in NAMES:
            made.capture(name)
        yield made


@pytest.fixture(scope="module")
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, (8080, 7000), (9000, 7001))
    yield made
    made.close()


def packed(mesh: Mesh, more: str, *, short_way: bool) -> Resources:
    made = mesh.packed(
        MANIFEST + more, *map(mesh.workload, NAMES), options=MeshOptions(short_way=short_way)
    )
    return made[Pool.TRAFFIC]


def mixed(chance: random.Random, before: Resources, after: Resources, rest: Resources) -> Resources:
    """Return a state between the two: with whichever listeners, and with all of ``rest``."""
    differ = sorted(difference(before, after).get(LISTENER, ()))
    chosen = {name: chance.choice((before, after)).of_type(LISTENER)[name] for name in differ}
    return Resources({**rest.by_type, LISTENER: {**after.of_type(LISTENER), **chosen}})


@pytest.fixture(scope="module")
def rest(mesh: Mesh, short_way: bool) -> Resources:
    """What the listeners of all configurations need: open connections still use what former
    listeners have led them to."""
    found: dict[str, dict[str, Resource]] = {}
    for served in ("", *map(second, SERVED)):
        for kind, named in packed(mesh, served, short_way=short_way).by_type.items():
            found.setdefault(kind, {}).update(named)
    return Resources(found)


@pytest.mark.parametrize("served", SERVED)
def test_in_each_state_between_two_configurations_connections_of_both_arrive(
    mesh: Mesh, application: Application, rest: Resources, short_way: bool, served: str
) -> None:
    chance = random.Random(served)  # noqa: S311
    before, after = (packed(mesh, more, short_way=short_way) for more in ("", second(served)))
    own = mesh.hosts["server"].address
    assert LISTENER in difference(before, after)
    for _ in range(STATES):
        mesh.publish({Pool.TRAFFIC: mixed(chance, before, after, rest)})
        found = fates(mesh, own)
        assert set(found.values()) == {"arrives"}, found
    assert not any("forged" in head for head in application.heads)


def fates(mesh: Mesh, own: str) -> Mapping[str, str]:
    """What becomes of requests and connections to what the first service says; ``own``: the
    server's address, where strangers call."""
    found: dict[str, str] = {}
    for caller, address in (("client", ADDRESS), ("client", own)):
        found[f"request to {address}"] = asked(mesh, caller, address)
        (said,) = words(mesh, caller, address, 9000)
        found[f"words to {address}"] = "arrives" if said == "reached" else said
    with mesh.outside.connect(own, 8080) as connection:
        status = answer(connection, FORGED).status
    found["a stranger's request"] = "arrives" if status == 200 else str(status)
    return found


def asked(mesh: Mesh, caller: str, address: str) -> str:
    with mesh.hosts[caller].connect(address, 8080) as connection:
        found = answer(connection, REQUEST.format("/"))
    return "arrives" if found.status == 200 else f"{found.status} {found.headers}"
