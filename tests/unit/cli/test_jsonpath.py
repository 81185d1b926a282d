"""kubectl's templates of paths."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from meshd.cli.jsonpath import render

LIST: dict[str, Any] = {
    "kind": "List",
    "items": [
        {
            "metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}},
            "spec": {"ports": [{"port": 80, "name": "http"}, {"port": 90, "name": "tcp"}]},
        },
        {"metadata": {"name": "b"}, "spec": {"on": True}},
    ],
}


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{.kind}", "List"),
        (".kind", "List"),
        ("{$.kind}", "List"),
        ("{.items[*].metadata.name}", "a b"),
        ("{.items[0].metadata.name}", "a"),
        ("{.items[-1].metadata.name}", "b"),
        ("{.items[7].metadata.name}", ""),
        ("{.items[0]['metadata']['name']}", "a"),
        (r"{.items[0].metadata.labels.app\.kubernetes\.io/name}", "x"),
        ("{..name}", "a http tcp b"),
        ('{.items[*].spec.ports[?(@.name=="tcp")].port}', "90"),
        ("{.items[*].spec.ports[?(@.port!=80)].name}", "tcp"),
        ("{.items[1].spec}", '{"on":true}'),
        ("{.items[1].spec.on}", "true"),
        ("{.none.at.all}", ""),
        ("name={.items[0].metadata.name};", "name=a;"),
        (
            r'{range .items[*]}{.metadata.name}{"\t"}{.spec.ports[0].port}{"\n"}{end}',
            "a\t80\nb\t\n",
        ),
        ("{range .items[*]}[{@.metadata.name}]{end}", "[a][b]"),
    ],
)
def test_a_template_is_filled_in(template: str, shown: str) -> None:
    assert render(template, LIST) == shown


@pytest.mark.parametrize(
    "template", ["{.a", "{range .items[*]}x", "{.a}{end}", "{.a[1:2]}", "{.items[?(@.a>1)]}"]
)
def test_a_jsonpath_that_is_not_supported_is_wrong_usage(template: str) -> None:
    with pytest.raises(typer.BadParameter, match="jsonpath: "):
        render(template, LIST)
