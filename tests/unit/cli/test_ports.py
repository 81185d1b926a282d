from __future__ import annotations

from typing import Any

import pytest
import typer

from meshd.base.errors import InvalidInputError
from meshd.cli.ports import PortWish, merged_service, new_service, parse_port

STORED: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "mesh"},
    "spec": {"selector": {"app": "x"}, "ports": [{"name": "http", "port": 80}]},
}


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("80=http", PortWish(80, 80, "http")),
        ("80:8080=HTTP", PortWish(80, 8080, "http")),
        ("5432", PortWish(5432, 5432, "tcp")),
    ],
)
def test_ports_as_people_write_them(text: str, wish: PortWish) -> None:
    assert parse_port(text) == wish


@pytest.mark.parametrize("text", ["", "http", "0=http", "80:=http", "1:2:3", "65536", "80=smtp"])
def test_what_is_no_port_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_port(text)


def test_a_new_service_has_the_ports() -> None:
    made = new_service("web", "mesh", (PortWish(80, 8080, "http"),), {"app": "web"}, {})
    assert made["spec"]["ports"] == [{"name": "http-80", "port": 80, "targetPort": 8080}]


def test_a_new_service_without_ports_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="--port"):
        new_service("web", "mesh", (), {}, {})


def test_a_stored_service_gets_what_it_lacks() -> None:
    assert merged_service(STORED, (PortWish(80, 8080, "http"),)) is STORED
    merged = merged_service(STORED, (PortWish(80, 80, "http"), PortWish(90, 9090, "grpc")))
    assert [port["port"] for port in merged["spec"]["ports"]] == [80, 90]
    assert len(STORED["spec"]["ports"]) == 1


def test_a_service_that_selects_nothing_cannot_be_joined() -> None:
    without = STORED | {"spec": {"ports": []}}
    with pytest.raises(InvalidInputError, match="has no selector"):
        merged_service(without, ())
