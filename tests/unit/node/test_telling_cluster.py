"""The mesh role hears all that the API server has, in whatever order they come and go."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshd import wire
from meshd.base.tasks import first_of
from meshd.kubernetes.client import Client
from meshd.node.telling_cluster import TellingCluster, Told
from meshd.wire import channel, cluster
from tests.unit.kubernetes.api_server import ApiServer
from tests.waiting import PATIENCE

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 2)),
        st.tuples(st.just("remove"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("list"), st.sampled_from(("", "a", "ab")), st.integers(0, 2)),
        st.tuples(st.sampled_from(("again", "take")), st.just(""), st.just(0)),
    ),
    max_size=30,
)


@given(_STEPS)
def test_who_is_told_each_change_knows_what_is_there(steps: list[tuple[str, str, int]]) -> None:
    told, heard = Told(), dict[str, int]()

    def hear() -> None:
        whole, changed, removed = told.take()
        if whole:
            heard.clear()
        heard.update(changed)
        for name in removed:
            heard.pop(name, None)

    for step, name, value in steps:
        match step:
            case "put":
                told.put(name, value)
            case "remove":
                told.remove(name)
            case "list":
                told.list(dict.fromkeys(name, value))
            case "again":
                told.again()
                heard.clear()
            case _:
                hear()
    hear()
    assert heard == (told.values or {})


def test_nothing_is_told_of_what_the_api_server_has_not_listed(tmp_path: Path) -> None:
    telling = TellingCluster(Client(ApiServer(tmp_path).access()), tmp_path / "mesh.sock")
    assert list(telling.messages()) == []


def test_a_long_list_is_told_in_parts(tmp_path: Path) -> None:
    telling = TellingCluster(Client(ApiServer(tmp_path).access()), tmp_path / "mesh.sock")
    values = {f"shop/{number}": {"metadata": {"name": number}} for number in range(1200)}
    telling.take_all("Service", values)
    parts = [one for one in telling.messages() if isinstance(one, cluster.Objects)]
    assert [(one.whole, len(one.changed)) for one in parts] == [
        (True, 500),
        (False, 500),
        (False, 200),
    ]
    assert [one for part in parts for one in part.changed] == list(values.values())
    assert list(telling.messages()) == []


def test_a_mesh_role_that_begins_anew_hears_all_again_and_what_is_not_followed(
    tmp_path: Path,
) -> None:
    """Also what came and went while it was away."""
    heard: list[wire.Message] = []

    async def handle(request: wire.ToMesh) -> wire.Message:
        heard.append(request)
        return wire.Done()

    async def until(condition: Callable[[], bool]) -> None:
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)

    def told(kind: type[wire.Message]) -> list[Any]:
        return [one for one in heard if isinstance(one, kind)]

    async def live() -> None:
        server = ApiServer(tmp_path, "/api/v1/services")
        await server.put("web", spec={"clusterIP": "198.19.0.7"})
        mesh, who = tmp_path / "mesh.sock", {os.getuid()}

        def until_ended(ended: asyncio.Event) -> channel.Session[wire.ToMesh]:
            async def session(connection: channel.Connection[wire.ToMesh]) -> None:
                async def answer() -> None:
                    await channel.answering(handle)(connection)

                await first_of(answer(), ended.wait())

            return session

        def services() -> list[Any]:
            return [one for one in told(cluster.Objects) if one.kind == "Service"]

        async with server.serving(), asyncio.timeout(PATIENCE):
            telling = TellingCluster(Client(server.access()), mesh)
            running = asyncio.ensure_future(telling.run())
            for name in ("db", "cache"):
                heard.clear()
                ended = asyncio.Event()
                session = until_ended(ended)
                async with await channel.listen(mesh, wire.MESH, session, uids=who):
                    await until(lambda: bool(services()))
                    await until(lambda: bool(told(cluster.Trouble)))
                    (first,) = services()
                    names = {one["metadata"]["name"] for one in first.changed}
                    assert (first.whole, names) == (True, server.objects.keys())
                    await server.put(name)
                    await until(lambda: services()[-1].whole is False)
                    (changed,) = services()[-1].changed
                    assert changed["metadata"]["name"] == name
                    ended.set()
            running.cancel()
        assert "endpointslices not found" in " ".join(told(cluster.Trouble)[-1].problems)

    asyncio.run(live())
