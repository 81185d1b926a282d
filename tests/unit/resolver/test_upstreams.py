"""Whether anybody outside takes queries."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.resolver import upstreams as under_test
from meshd.resolver.upstreams import Upstream, refuses, upstreams, watch
from meshd.settings import MeshSettings


@pytest.fixture
def silent() -> Iterator[Upstream]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        yield listening.getsockname()


def test_upstream_resolvers_are_those_of_the_settings_or_else_the_hosts(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    assert upstreams(MeshSettings(), path) == ()
    path.write_text("search a.test\nnameserver 192.0.2.1\nnameserver\nnameserver fe80::1%eth0\n\n")
    assert upstreams(MeshSettings(), path)[0] == ("192.0.2.1", 53)
    assert upstreams(MeshSettings(dns_upstreams=("192.0.2.9:54",)), path) == (("192.0.2.9", 54),)


def test_not_to_answer_is_not_to_refuse(silent: Upstream) -> None:
    assert not asyncio.run(refuses(silent))


def test_a_port_where_nobody_is_refuses(silent: Upstream) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as passing:
        passing.bind(("127.0.0.1", 0))
        gone = passing.getsockname()
    assert asyncio.run(refuses(gone))


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        (["no", "no"], [False, False]),
        (["all", "all", "no"], [False]),
        (["all", "all", "all", "all", "no"], [True, True, False]),
        (["some", "some", "some", "some"], [False] * 4),
    ],
)
def test_a_problem_is_reported_when_all_upstreams_refuse_several_times_in_a_row(
    monkeypatch: pytest.MonkeyPatch, looks: list[str], told: list[bool]
) -> None:
    monkeypatch.setattr(under_test, "_SOON", 0)
    monkeypatch.setattr(under_test, "_LATER", 0)
    heard: list[bool] = []
    left = iter(looks)

    async def look() -> None:
        current = ""

        def listed() -> tuple[Upstream, ...]:
            nonlocal current
            current = next(left)
            return (("192.0.2.1", 53), ("192.0.2.2", 53))

        async def refused(upstream: Upstream) -> bool:
            return current == "all" or (current == "some" and upstream[0].endswith("1"))

        with contextlib.suppress(RuntimeError, StopIteration):
            await watch(listed, heard.append, refused)

    asyncio.run(look())
    assert heard == told
