"""The plugin is the last of the chain that a runtime takes, and leaves it as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshd.cni import chain
from meshd.cni.chain import PLUGIN, first, with_plugin, without_plugin

BRIDGE = {"type": "bridge", "bridge": "cni0"}
PORTS = {"type": "portmap"}
OURS = {"type": PLUGIN}


def listed(*plugins: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins, **more}).encode()


def after(files: dict[str, bytes], changes: dict[str, bytes | None]) -> dict[str, bytes]:
    merged = {**files, **changes}
    return {name: content for name, content in merged.items() if content is not None}


def plugins(content: bytes) -> list[Any]:
    return json.loads(content)["plugins"]


def test_it_comes_last_and_the_rest_of_the_list_stays() -> None:
    files = {"10-pods.conflist": listed(BRIDGE, PORTS, disableCheck=True)}
    ((name, content),) = with_plugin(files).items()
    assert name == "10-pods.conflist"
    assert content is not None
    assert json.loads(content) == json.loads(listed(BRIDGE, PORTS, OURS, disableCheck=True))


def test_a_second_time_nothing_changes() -> None:
    files = {"10-pods.conflist": listed(BRIDGE)}
    assert with_plugin(after(files, with_plugin(files))) == {}


@pytest.mark.parametrize("order", [(OURS, BRIDGE), (OURS, BRIDGE, OURS)])
def test_it_comes_last_once_wherever_it_was(order: tuple[dict[str, Any], ...]) -> None:
    ((_, content),) = with_plugin({"10-pods.conflist": listed(*order)}).items()
    assert content is not None
    assert plugins(content) == [BRIDGE, OURS]


def test_only_the_list_that_a_runtime_takes_is_changed() -> None:
    files = {
        "00-broken.conflist": b"{",
        "05-nameless.conflist": json.dumps({"plugins": [BRIDGE]}).encode(),
        "07-notes.txt": listed(PORTS),
        "10-pods.conflist": listed(BRIDGE),
        "20-later.conflist": listed(PORTS),
    }
    assert first(files) == "10-pods.conflist"
    assert with_plugin(files).keys() == {"10-pods.conflist"}


@pytest.mark.parametrize("suffix", [".conf", ".json"])
def test_a_single_plugin_becomes_a_list_and_is_restored(suffix: str) -> None:
    alone = json.dumps({"cniVersion": "0.4.0", "name": "pods", **BRIDGE}).encode()
    files = {f"10-pods{suffix}": alone}
    changed = after(files, with_plugin(files))
    assert first(changed) == "10-pods.conflist"
    made = json.loads(changed["10-pods.conflist"])
    assert (made["name"], made["cniVersion"]) == ("pods", "0.4.0")
    assert [one["type"] for one in made["plugins"]] == ["bridge", PLUGIN]
    assert with_plugin(changed) == {}
    assert after(changed, without_plugin(changed)) == files


def test_what_is_taken_out_is_in_no_chain() -> None:
    files = {
        "10-pods.conflist": listed(BRIDGE, OURS),
        "20-others.conflist": listed(PORTS, OURS),
        "30-never.conflist": listed(PORTS),
    }
    changes = without_plugin(files)
    assert changes.keys() == {"10-pods.conflist", "20-others.conflist"}
    assert [plugins(content) for content in changes.values() if content] == [[BRIDGE], [PORTS]]


def test_where_there_is_no_network_nothing_is_made() -> None:
    assert with_plugin({}) == {}
    assert with_plugin({"10-pods.conflist": b"null"}) == {}
    assert chain.first({"loopback.conf": b'{"name": "lo"}'}) == ""
