"""What a proxy is started with, and that the real Envoy takes it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from meshd.api.base import Duration
from meshd.model.buffers import CONNECTION_BUFFER
from meshd.model.capacity import Capacity
from meshd.model.pool import Pool, pool_of
from meshd.model.pool_size import PoolSize
from meshd.proxy import binary
from meshd.proxy.bootstrap import arguments, bootstrap, config_of, member_name, node_id
from meshd.proxy.pool import Member
from meshd.settings import Paths, ProxySettings, Settings

PATHS = Paths.from_environment({"MESHD_HOME": "/tmp/meshd-none"})
MEMBER = Member(Pool.TRAFFIC, 3)
SETTINGS = Settings(node="n1")
CAPACITY = Capacity(PoolSize(2, 1), 2, 300 * 1024 * 1024, 77, 11, 1000)


@pytest.mark.parametrize("pool", Pool)
def test_envoy_accepts_the_bootstrap_of_each_pool(tmp_path: Path, pool: Pool) -> None:
    config = tmp_path / "bootstrap.json"
    config.write_text(json.dumps(bootstrap(SETTINGS, PATHS, Member(pool, 3), CAPACITY)))
    command = [binary.find(SETTINGS.proxy), *arguments(SETTINGS.proxy, pool, config)]
    run = subprocess.run(
        [*command, "--mode", "validate"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


def test_what_a_proxy_may_hold_is_in_it() -> None:
    manager = bootstrap(SETTINGS, PATHS, MEMBER, CAPACITY)["overload_manager"]
    heap, connections = (one["typed_config"] for one in manager["resource_monitors"])
    assert heap["max_heap_size_bytes"] == 300 * 1024 * 1024
    assert connections["max_active_downstream_connections"] == 77


def test_the_connections_that_take_most_memory_end_before_any_is_refused() -> None:
    manager = bootstrap(SETTINGS, PATHS, MEMBER, CAPACITY)["overload_manager"]
    triggers = {one["name"].rpartition(".")[2]: one["triggers"][0] for one in manager["actions"]}
    refusing = min(
        triggers[name]["threshold"]["value"]
        for name in ("stop_accepting_requests", "stop_accepting_connections")
    )
    for name in ("reset_high_memory_stream", "reduce_timeouts"):
        assert triggers[name]["scaled"]["saturation_threshold"] < refusing
    assert triggers["shrink_heap"]["threshold"]["value"] < refusing


def test_connections_inside_a_proxy_have_small_buffers_too() -> None:
    (extension,) = bootstrap(SETTINGS, PATHS, MEMBER, CAPACITY)["bootstrap_extensions"]
    assert extension["typed_config"]["buffer_size_kb"] * 1024 == CONNECTION_BUFFER


def test_nothing_of_it_leaves_the_host() -> None:
    made = bootstrap(SETTINGS, PATHS, MEMBER, CAPACITY)
    assert "socket_address" not in json.dumps(made)
    assert made["admin"]["address"]["pipe"] == {
        "path": "/tmp/meshd-none/run/admin/proxy-3.sock",
        "mode": 0o660,
    }


def test_members_have_names_of_their_own() -> None:
    made = bootstrap(SETTINGS, PATHS, MEMBER, CAPACITY)
    assert made["node"]["id"] == "n1~proxy-3" == node_id("n1", "proxy-3")
    assert member_name("n1~proxy-3") == member_name("proxy-3") == "proxy-3"


@pytest.mark.parametrize(("drain", "told"), [(0.2, "1"), (5, "5"), (90, "90")])
def test_a_proxys_command_line_tells_whose_it_is(drain: float, told: str) -> None:
    proxy = ProxySettings(drain_time=Duration(drain))
    line = arguments(proxy, Pool.TRAFFIC, Path("/run/x.json"))
    assert line[line.index("--drain-time-s") + 1] == told
    assert config_of(["setpriv", "--", "envoy", *line]) == "/run/x.json"
    assert config_of(["sleep", "--config-path"]) == ""


@pytest.mark.parametrize("pool", Pool)
def test_a_proxy_tells_the_xds_server_which_pool_it_is_of(pool: Pool) -> None:
    node = bootstrap(SETTINGS, PATHS, Member(pool, 0), CAPACITY)["node"]
    assert pool_of(node["cluster"]) is pool
