"""What is spoken on a port is found out without losing those who take their time."""

from __future__ import annotations

import pytest

from tests.envoy.between.application import BANNER
from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import Mesh

pytestmark = pytest.mark.usefixtures("application")


def test_other_protocols_pass_unchanged_on_an_undeclared_port(mesh: Mesh) -> None:
    with mesh.hosts["client"].connect(ADDRESS, 7001) as client:
        client.sendall(b"not http\n")
        stream = client.makefile("rb")
        assert [stream.readline(), stream.readline()] == [BANNER, b"not http\n"]


@pytest.mark.parametrize("caller", ["client", "outside"])
def test_a_server_may_speak_first_on_a_port_declared_tcp(mesh: Mesh, caller: str) -> None:
    host, address = mesh.outside, mesh.hosts["server"].address
    if caller != "outside":
        host, address = mesh.hosts[caller], ADDRESS
    with host.connect(address, 9000) as client:
        assert client.makefile("rb").readline() == BANNER
