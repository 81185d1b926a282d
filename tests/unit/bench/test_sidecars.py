"""The pair of sidecars that meshd is compared with does what a mesh's do."""

from __future__ import annotations

from pathlib import Path

from tests.bench import sidecars

KINDS = {"http": 8080, "tcp": 9000}
PORTS = {"http": 80, "tcp": 90}


def test_the_client_speaks_mutual_tls_and_the_server_demands_it() -> None:
    client = sidecars.client(Path("/x"), "198.18.0.9", KINDS, PORTS)["static_resources"]
    server = sidecars.server(Path("/x"), KINDS)["static_resources"]

    for cluster in client["clusters"]:
        context = cluster["transport_socket"]["typed_config"]["common_tls_context"]
        assert context["tls_certificates"]
        assert context["validation_context"]
    for listener in server["listeners"]:
        for chain in listener["filter_chains"]:
            assert chain["transport_socket"]["typed_config"]["require_client_certificate"]
    assert not any("transport_socket" in cluster for cluster in server["clusters"])


def test_both_sides_understand_http_and_neither_looks_into_tcp() -> None:
    for side in (
        sidecars.client(Path("/x"), "198.18.0.9", KINDS, PORTS),
        sidecars.server(Path("/x"), KINDS),
    ):
        kinds = {
            listener["name"]: listener["filter_chains"][0]["filters"][0]["name"].rpartition(".")[2]
            for listener in side["static_resources"]["listeners"]
        }
        assert kinds == {"http": "http_connection_manager", "tcp": "tcp_proxy"}


def test_each_port_is_redirected_to_the_listener_of_its_kind() -> None:
    listeners = sidecars.client(Path("/x"), "198.18.0.9", KINDS, PORTS)["static_resources"][
        "listeners"
    ]
    ports = [listener["address"]["socket_address"]["port_value"] for listener in listeners]

    rules = sidecars.redirections("198.19.0.9", PORTS, inbound=False).splitlines()

    assert [rule.split()[-1] for rule in rules if "--dport 80 " in rule] == [str(ports[0])]
    assert [rule.split()[-1] for rule in rules if "--dport 90 " in rule] == [str(ports[1])]


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    sidecars.write_certificates(tmp_path)

    assert {key.stat().st_mode & 0o777 for key in tmp_path.glob("*.key")} == {0o600}
    assert len(list(tmp_path.glob("*.pem"))) == 3


def test_those_like_istios_take_all_on_one_port_and_choose_by_the_original_destination() -> None:
    client = sidecars.client(Path("/x"), "198.18.0.9", KINDS, PORTS, istio=True)
    entrance, *inner = client["static_resources"]["listeners"]

    assert entrance["use_original_dst"]
    assert {one["address"]["socket_address"]["port_value"] for one in inner} == {80, 90}
    assert not any(one["bind_to_port"] for one in inner)
    for inbound, first in ((False, sidecars.OUTBOUND), (True, sidecars.INBOUND)):
        rules = sidecars.redirections("198.19.0.9", PORTS, inbound=inbound, istio=True)
        assert {line.split()[-1] for line in rules.splitlines() if "REDIRECT" in line} == {
            str(first)
        }


def test_those_like_istios_have_its_filters_and_metrics_on_both_sides() -> None:
    (server,) = sidecars.server(Path("/x"), KINDS, istio=True)["static_resources"]["listeners"]
    client = sidecars.client(Path("/x"), "198.18.0.9", KINDS, PORTS, istio=True)
    _, http, tcp = client["static_resources"]["listeners"]
    chains = [*server["filter_chains"], *http["filter_chains"], *tcp["filter_chains"]]

    assert [one["name"].rpartition(".")[2] for one in server["listener_filters"]] == [
        *("original_dst", "tls_inspector", "http_inspector")
    ]
    for chain in chains:
        (last,) = chain["filters"]
        (metrics,) = last["typed_config"]["access_log"]
        assert metrics["name"] == "envoy.access_loggers.stats"
        if "http_filters" in last["typed_config"]:
            names = [one["name"].rpartition(".")[2] for one in last["typed_config"]["http_filters"]]
            assert names == ["grpc_stats", "fault", "cors", "router"]
