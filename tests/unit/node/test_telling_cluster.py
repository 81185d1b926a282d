"""The mesh role hears all that the API server has, in whatever order they come and go."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from meshd.kubernetes.client import Client
from meshd.node.telling_cluster import TellingCluster, Told
from tests.unit.kubernetes.api_server import ApiServer

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 2)),
        st.tuples(st.just("remove"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("list"), st.sampled_from(("", "a", "ab")), st.integers(0, 2)),
        st.tuples(st.sampled_from(("again", "take")), st.just(""), st.just(0)),
    ),
    max_size=30,
)


@given(_STEPS)
def test_who_is_told_each_change_knows_what_is_there(steps: list[tuple[str, str, int]]) -> None:
    told, heard = Told(), dict[str, int]()

    def hear() -> None:
        whole, changed, removed = told.take()
        if whole:
            heard.clear()
        heard.update(changed)
        for name in removed:
            heard.pop(name, None)

    for step, name, value in steps:
        match step:
            case "put":
                told.put(name, value)
            case "remove":
                told.remove(name)
            case "list":
                told.list(dict.fromkeys(name, value))
            case "again":
                told.again()
                heard.clear()
            case _:
                hear()
    hear()
    assert heard == (told.values or {})


def test_nothing_is_told_of_what_the_api_server_has_not_listed(tmp_path: Path) -> None:
    telling = TellingCluster(Client(ApiServer(tmp_path).access()), tmp_path / "mesh.sock")
    assert list(telling.messages()) == []
