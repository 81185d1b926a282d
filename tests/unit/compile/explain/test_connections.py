"""What explain says of the end of a connection."""

from __future__ import annotations

import pytest

from meshd.compile.explain.connections import tell_short_way
from meshd.compile.policy.served import Spoken
from meshd.model.short_way import Requests


@pytest.mark.parametrize(
    ("spoken", "sent", "told"),
    [
        (Spoken.HTTP, "http1", "straight to the application"),
        (Spoken.OPAQUE, "", "straight to the application"),
        (None, "", "straight to the application"),
        (Spoken.HTTP, "http2", "clients send another version of HTTP"),
        (Spoken.HTTP, "", "clients do not send it as requests"),
        (Spoken.SNIFFED, "http1", "its port is not declared for one version"),
    ],
)
def test_requests_on_the_short_way_are_read_again_for_a_reason(
    spoken: Spoken | None, sent: Requests, told: str
) -> None:
    ports = {} if spoken is None else {80: spoken}
    assert told in tell_short_way(ports, 80, sent)


def test_what_a_workload_judges_is_read_on_its_side() -> None:
    told = tell_short_way({80: Spoken.HTTP}, 80, "http1", judged=True)
    assert "read once more, since a policy is about the workload" in told
