"""What a workload may be, whoever says so."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import UNDECODABLE
from meshd.model.workload import Workload, address_problem

_GOOD: dict[str, Any] = {
    "uid": "bank.till-1",
    "name": "till-1",
    "namespace": "bank",
    "netns": "",
    "labels": {"app": "till", "app.kubernetes.io/name": "till"},
    "addresses": ["198.18.0.1", "fd00:198::1"],
    "ports": [{"name": "web", "number": 8080}],
    "service_account": "till",
    "locality": "eu/west/a",
}


def decode(value: dict[str, Any]) -> Workload:
    return msgspec.json.decode(msgspec.json.encode(value), type=Workload)


def test_a_workload_of_every_field_is_taken() -> None:
    assert decode(_GOOD).addresses == ("198.18.0.1", "fd00:198::1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"addresses": ["not-an-ip"]},
        {"addresses": ["127.0.0.1"]},
        {"addresses": ["0.0.0.0"]},
        {"addresses": ["224.0.0.1"]},
        {"addresses": ["::1"]},
        {"addresses": ["::ffff:198.18.0.1"]},
        {"addresses": ["fe80::1%eth0"]},
        {"addresses": ["198.18.0.1/32"]},
        {"addresses": [" 198.18.0.1"]},
        {"addresses": ["198.18.0.1"] * 65},
        {"ports": [{"name": "web", "number": 99999999999}]},
        {"ports": [{"name": "web", "number": 0}]},
        {"ports": [{"name": "web", "number": -1}]},
        {"ports": [{"name": "web\n", "number": 1}]},
        {"ports": [{"name": "web", "number": 1}] * 257},
        {"uid": ""},
        {"uid": "../../etc/passwd"},
        {"uid": "mesh.\x1b]0;x\x07\nerror supervisor: FAKE"},
        {"uid": "a/b"},
        {"uid": "a" * 400},
        {"name": "Upper"},
        {"name": "a\n"},
        {"namespace": "a.b"},
        {"namespace": ""},
        {"service_account": "a/../b"},
        {"labels": {"a b": "c"}},
        {"labels": {"a": "b\x1b"}},
        {"labels": {"a": "x" * 64}},
        {"labels": {f"l{number}": "x" for number in range(257)}},
        {"annotations": {"a": "x" * 70_000}},
        {"locality": "a/b/c/d"},
        {"locality": "a\n"},
        {"node": "\x07"},
        {"netns": "/run/netns/\x00"},
        {"host": {"cgroup": "a\nb"}},
        {"host": {"cgroup": "a", "outbound_port": 65536}},
    ],
)
def test_a_workload_that_no_machine_has_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(_GOOD | wrong)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_not(text: str) -> None:
    assert isinstance(address_problem(text), str)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*_GOOD, "host"]) | st.text(max_size=5), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*_GOOD, "host", "ready"]), _JSON))
def test_whatever_is_written_is_a_workload_or_undecodable(changed: dict[str, Any]) -> None:
    with contextlib.suppress(*UNDECODABLE):
        decode(_GOOD | changed)


def _may_be_of_a_workload(text: str) -> bool:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_multicast or address.is_unspecified)


def test_every_network_of_ipv4_is_judged_as_python_does() -> None:
    texts = [f"{first}.0.0.{last}" for first in range(260) for last in (0, 1, 255, 256)]
    texts += [f"10.{'.'.join([byte] * 3)}" for byte in map(str, range(260))]
    wrong = [one for one in texts if (not address_problem(one)) != _may_be_of_a_workload(one)]
    assert wrong == []


@given(st.text("0123456789.\n \u0661", max_size=16))
def test_malformed_ipv4_addresses_are_judged_as_python_does(text: str) -> None:
    assert (not address_problem(text)) == _may_be_of_a_workload(text)
