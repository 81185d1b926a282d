"""Every kind of object has a row in each table of kinds: whoever adds a kind decides on all of it.

The tables are apart because of the layers: what reads objects must not know what is shown of them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import pytest

from meshd.analysis import references
from meshd.api import dispatch, kinds
from meshd.api.gateway.types import Gateway
from meshd.api.kubernetes.types import Namespace, Secret, ServiceAccount
from meshd.api.service_entry.types import WorkloadGroup
from meshd.cli import objects
from meshd.fleet.server.stand_ins import opens_if_absent

WITHOUT_REPLACEMENT: Final = {
    Namespace: "its labels are told, whatever else of it cannot be",
    ServiceAccount: "it says no more than its name",
    Secret: "what names it does without it, or is closed",
    Gateway: "nothing is served without it",
    WorkloadGroup: "it declares neither a policy nor a host",
}
"""Kinds of which no closed object is told in place of one that nodes cannot be told of, and why."""


@pytest.mark.parametrize(
    ("table", "of"),
    [
        (dispatch.CHECKS, kinds.ALL),
        (references.ABOUT, kinds.STORED),
        (objects.COLUMNS, [kind.KIND for kind in kinds.STORED]),
    ],
    ids=["checks", "references", "columns"],
)
def test_each_table_has_a_row_for_each_kind(
    table: Collection[object], of: Collection[object]
) -> None:
    assert set(table) == set(of)


@pytest.mark.parametrize("kind", kinds.STORED)
def test_a_kind_of_which_absence_opens_something_has_a_closed_replacement(
    kind: type[kinds.Object],
) -> None:
    assert opens_if_absent({"kind": kind.KIND}) is (kind not in WITHOUT_REPLACEMENT)
