"""What the workloads of a node may be."""

from __future__ import annotations

import pytest

from meshd.base.errors import InvalidInputError
from meshd.model import bounds


def test_without_bounds_everything_fits() -> None:
    assert bounds.cover((), "any", "thing")
    assert bounds.show(()) == "any"


@pytest.mark.parametrize(
    ("within", "fits"),
    [
        (("shop",), True),
        (("shop/web",), True),
        (("bank", "shop"), True),
        (("shop/db",), False),
        (("bank",), False),
        (("shop2",), False),
        (("web",), False),
    ],
)
def test_a_bound_is_a_namespace_or_an_account_of_one(within: bounds.Bounds, fits: bool) -> None:
    assert bounds.cover(within, "shop", "web") is fits


def test_bounds_are_kept_in_order_each_once() -> None:
    assert bounds.checked(["b", "a/x", "b"]) == ("a/x", "b")


@pytest.mark.parametrize("text", ["", "/", "a/", "/a", "a/b/c", "A", "a b", "-a", "a-", "*", "ä"])
def test_invalid_names_of_namespaces_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is neither NAMESPACE nor NAMESPACE/SERVICE_ACC"):
        bounds.checked(["a", text])
