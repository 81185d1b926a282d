"""Bookinfo in pods, without a mesh: as names need one, services are told each other's addresses."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.demo import bookinfo
from meshd.model.pod import PodState
from meshd.pods.addresses import FIRST_POD
from meshd.pods.client import Client
from meshd.pods.files import Home
from meshd.pods.images import read_image_map
from meshd.settings import Paths
from tests.network_lease import leased_network
from tests.waiting import PATIENCE, eventually

BOOKINFO = Path(bookinfo.__file__).parent
NETWORKS = [f"198.18.{third}.0/26" for third in range(32, 64)]
ORDER = ("details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3", "productpage-v1")
"""Of the pods in the manifest, and so of their addresses."""


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="mtb-"))
    monkeypatch.setenv("MESHD_HOME", str(directory))
    yield directory
    shutil.rmtree(directory)


def with_addresses(manifest: str, network: str) -> str:
    env = "".join(
        f"        - {{name: {service}_HOSTNAME, value: {network}.{FIRST_POD + ORDER.index(pod)}}}\n"
        for service, pod in (
            ("DETAILS", "details-v1"),
            ("RATINGS", "ratings-v1"),
            ("REVIEWS", "reviews-v3"),
        )
    )
    return manifest.replace("        ports:\n", f"        env:\n{env}        ports:\n")


async def run(client: Client, network: str) -> tuple[PodState, ...]:
    manifest = with_addresses((BOOKINFO / "manifests/bookinfo.yaml").read_text(), network)
    sources = (("bookinfo.yaml", manifest),)
    images = read_image_map(BOOKINFO / "images.yaml")
    plan, cidr = await client.plan(sources, "default", images, f"{network}.0/26")
    await client.run(plan, cidr)
    return await client.wait_ready(plan, PATIENCE, lambda _: None)


def whole(address: str) -> str:
    """Return the page; nothing if the services had to wait for each other for too long."""
    url = f"http://{address}:9080/productpage"
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        text = response.read().decode()
    return "" if "Error fetching" in text else text


def test_bookinfo_puts_its_page_together(home: Path) -> None:
    client = Client(Home(Paths(home / "etc", home / "lib", home / "run")))
    with leased_network(NETWORKS) as cidr:
        try:
            pods = asyncio.run(run(client, cidr.removesuffix(".0/26")))
            by_deployment = dict(zip(ORDER, pods, strict=True))
            page = by_deployment["productpage-v1"].plan.address
            text = eventually(lambda: whole(page), "the page is whole")
        finally:
            asyncio.run(client.down())
    assert "<title>Simple Bookstore App</title>" in text
    assert text.count('<font color="red">') == 2
    assert text.count('glyphicon-star"') == 9
    assert f"<u>{by_deployment['reviews-v3'].plan.name}</u>" in text
