from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshd.compile.policy import straight
from meshd.compile.policy.served import Spoken
from meshd.model.short_way import Requests

_SPOKEN = st.none() | st.sampled_from(list(Spoken))
_SENT: st.SearchStrategy[Requests] = st.sampled_from(["", "http1", "http2"])


@given(_SPOKEN, _SENT)
def test_requests_go_straight_only_in_the_one_version_that_is_declared(
    spoken: Spoken | None, sent: Requests
) -> None:
    fits = (spoken, sent) in {(Spoken.HTTP, "http1"), (Spoken.HTTP2, "http2")}
    assert (straight.obstacle(spoken, sent) == "") == fits
