from __future__ import annotations

import pytest
import typer

from meshd.cli.ports import parse_port
from meshd.wire import OfferedPort


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("80=http", OfferedPort(80, 80, "http")),
        ("80:8080=HTTP", OfferedPort(80, 8080, "http")),
        ("5432", OfferedPort(5432, 5432, "tcp")),
    ],
)
def test_ports_as_people_write_them(text: str, wish: OfferedPort) -> None:
    assert parse_port(text) == wish


@pytest.mark.parametrize("text", ["", "http", "0=http", "80:=http", "1:2:3", "65536", "80=smtp"])
def test_text_that_is_no_port_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_port(text)
