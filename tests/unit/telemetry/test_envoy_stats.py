"""Many proxies' expositions become one that a strict reader takes."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from meshd.telemetry.envoy_stats import Merged, collect

EXPOSITION: Final = b"""\
# TYPE envoy_requests counter
envoy_requests{cluster="a"} 1
envoy_requests{} 2

# TYPE envoy_memory gauge
envoy_memory 3

# TYPE envoy_time histogram
envoy_time_bucket{cluster="a",le="0.5"} 4
envoy_time_bucket{cluster="a",le="+Inf"} 5
envoy_time_sum{cluster="a"} 6.5
envoy_time_count{cluster="a"} 5
"""


def merge(*expositions: tuple[str, bytes]) -> bytes:
    merged = Merged()
    for proxy, text in expositions:
        merged.add(proxy, text.split(b"\n"), b"")
    return merged.render()


def families(text: bytes) -> dict[str, list[Any]]:
    return {
        family.name: list(family.samples)
        for family in text_string_to_metric_families(text.decode())
    }


def test_each_sample_is_labelled_with_its_proxy() -> None:
    lines = merge(("proxy-0", EXPOSITION)).splitlines()
    assert b'envoy_requests{proxy="proxy-0",cluster="a"} 1' in lines
    assert b'envoy_requests{proxy="proxy-0"} 2' in lines
    assert b'envoy_memory{proxy="proxy-0"} 3' in lines


def test_a_family_of_two_proxies_is_one_family() -> None:
    text = merge(("proxy-0", EXPOSITION), ("proxy-1", EXPOSITION))
    assert text.count(b"# TYPE envoy_requests ") == 1
    found = families(text)
    assert len(found["envoy_requests"]) == 4
    assert len(found["envoy_time"]) == 8
    assert {sample.labels["proxy"] for sample in found["envoy_time"]} == {"proxy-0", "proxy-1"}


def test_a_family_that_only_one_has_is_kept() -> None:
    other = b"# TYPE envoy_other gauge\nenvoy_other{} 9\n"
    found = families(merge(("proxy-0", EXPOSITION), ("proxy-1", other)))
    assert [sample.value for sample in found["envoy_other"]] == [9]


class Admin:
    """Answers any request with given chunks, as Envoy's admin interface does."""

    def __init__(self, path: Path, chunks: list[bytes], status: str = "200 OK") -> None:
        self.path = path
        self._chunks = chunks
        self._status = status

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {self._status}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for chunk in self._chunks:
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()


def collected(*admins: Admin, gone: Path | None = None) -> bytes:
    async def run() -> bytes:
        servers = [await asyncio.start_unix_server(one.serve, one.path) for one in admins]
        sockets = {one.path.stem: one.path for one in admins} | ({"gone": gone} if gone else {})
        try:
            return await collect(sockets)
        finally:
            for server in servers:
                server.close()

    return asyncio.run(run())


def test_proxies_are_asked_over_their_sockets(tmp_path: Path) -> None:
    text = collected(
        Admin(tmp_path / "proxy-0.sock", [EXPOSITION]),
        Admin(tmp_path / "proxy-1.sock", [EXPOSITION]),
    )
    assert len(families(text)["envoy_requests"]) == 4


def test_a_proxy_that_is_gone_is_left_out(tmp_path: Path) -> None:
    text = collected(Admin(tmp_path / "proxy-0.sock", [EXPOSITION]), gone=tmp_path / "gone.sock")
    assert len(families(text)["envoy_requests"]) == 2


def test_an_error_of_a_proxy_is_not_taken_for_metrics(tmp_path: Path) -> None:
    assert collected(Admin(tmp_path / "p.sock", [b"no 1\n"], "503 Unavailable")) == b""


def test_half_an_answer_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    class Dying(Admin):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + EXPOSITION[:60])
            await writer.drain()
            writer.close()

    assert families(collected(Dying(tmp_path / "p.sock", [])))["envoy_requests"]


@given(st.lists(st.integers(1, len(EXPOSITION)), max_size=8))
def test_where_the_stream_is_cut_does_not_matter(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(EXPOSITION)]
    merged, rest, family = Merged(), b"", b""
    for begin, end in itertools.pairwise(places):
        *lines, rest = (rest + EXPOSITION[begin:end]).split(b"\n")
        family = merged.add("proxy-0", lines, family)
    assert merged.render() == merge(("proxy-0", EXPOSITION))
