from __future__ import annotations

import pytest

from meshd.capture.rules.delta import parse_save
from meshd.capture.rules.foreign import marks_in


def marks(chain: str, rule: str, table: str = "mangle") -> list[str]:
    text = f"""*{table}
:PREROUTING ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:MESHD_OUTPUT - [0:0]
:THEIRS - [0:0]
-A OUTPUT -j MESHD_OUTPUT
-A OUTPUT -p tcp -j THEIRS
-A MESHD_OUTPUT -j CONNMARK --restore-mark --nfmask 0xfff --ctmask 0xfff
-A {chain} {rule}
COMMIT
"""
    return list(marks_in(parse_save(text)))


@pytest.mark.parametrize(
    "rule",
    [
        "-j MARK --set-xmark 0x539/0xffffffff",
        "-j MARK --set-xmark 0x1/0x1",
        "-j MARK --set-xmark 0x0/0xfff",
        "-j CONNMARK --set-xmark 0x111/0xffffffff",
        "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        "-j CONNMARK --restore-mark --nfmask 0x1 --ctmask 0xffffffff",
        "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        "-p tcp -j NFQUEUE --queue-num 0",
        "-j HMARK --hmark-tuple src,dst --hmark-mod 10 --hmark-offset 1000",
        "-j DNPT --src-pfx fd00::/64 --dst-pfx fd01::/64",
        "-p tcp -j TPROXY --on-port 99 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0",
    ],
)
def test_rules_that_change_the_mesh_s_marks_are_found_wherever_packets_go(rule: str) -> None:
    assert marks("OUTPUT", rule) == [f"table mangle: -A OUTPUT {rule}"]
    assert marks("THEIRS", rule) == [f"table mangle: -A THEIRS {rule}"]
    assert marks("PREROUTING", rule, "raw") == [f"table raw: -A PREROUTING {rule}"]


@pytest.mark.parametrize(
    "rule",
    [
        "-j MARK --set-xmark 0x4000/0x4000",
        "-j CONNMARK --restore-mark --nfmask 0xffff0000 --ctmask 0xffff0000",
        "-j CONNMARK --save-mark --nfmask 0xff000000 --ctmask 0xff000000",
        "-j TOS --set-tos 0x10/0xff",
        "-j ACCEPT",
    ],
)
def test_marks_of_others_are_none_of_the_mesh_s(rule: str) -> None:
    assert marks("OUTPUT", rule) == []


def test_marks_of_forwarded_packets_do_not_count() -> None:
    assert marks("FORWARD", "-j MARK --set-xmark 0x539/0xffffffff") == []
