"""The workloads that a name on the command line means."""

from __future__ import annotations

import pytest

from meshd.base.errors import InvalidInputError
from meshd.model.workload import Workload
from meshd.workloads.finding import find

KNOWN = [
    Workload(uid=f"{place}.{name}", name=name, namespace=place, netns="/run/netns/x")
    for place, name in (
        ("shop", "web"),
        ("shop", "web-5d4f8c7b9d-abcde"),
        ("shop", "web-admin-5d4f8c7b9d-abcde"),
        ("shop", "db-0"),
        ("shop", "db-10"),
        ("shop", "a.b"),
        ("bank", "till-1"),
    )
]


def names(asked: str, namespace: str = "shop") -> list[str]:
    return [f"{one.namespace}/{one.name}" for one in find(KNOWN, asked, namespace)]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("web", ["shop/web"]),
        ("web-5", ["shop/web-5d4f8c7b9d-abcde"]),
        ("db", ["shop/db-0", "shop/db-10"]),
        ("pod/web", ["shop/web"]),
        ("pods/web-admin", ["shop/web-admin-5d4f8c7b9d-abcde"]),
        ("deploy/web", ["shop/web-5d4f8c7b9d-abcde"]),
        ("deployment/web.shop", ["shop/web-5d4f8c7b9d-abcde"]),
        ("sts/db", ["shop/db-0", "shop/db-10"]),
        ("till-1.bank", ["bank/till-1"]),
        ("till.bank", ["bank/till-1"]),
        ("pod/till-1.bank", ["bank/till-1"]),
        ("a.b", ["shop/a.b"]),
        ("a.b.shop", ["shop/a.b"]),
        ("bank/till-1", ["bank/till-1"]),
        ("bank/till", ["bank/till-1"]),
        ("shop/web", ["shop/web"]),
    ],
)
def test_a_workload_is_found_by_name_type_and_namespace(asked: str, found: list[str]) -> None:
    assert names(asked) == found


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("nobody", "workload shop/nobody not found: see meshctl status"),
        ("deploy/db", "workload shop/deploy/db not found: see meshctl status"),
        ("deploy/we", "workload shop/deploy/we not found: see meshctl status"),
        ("bank/web", "workload bank/web not found: see meshctl status"),
        (
            "svc/web",
            '"svc/web" is not a workload: before the / stands a namespace in which workloads run,'
            " or one of pod, deploy, sts, ds",
        ),
    ],
)
def test_a_workload_that_is_not_found_is_named(asked: str, problem: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        find(KNOWN, asked, "shop")
    assert str(error.value) == problem
