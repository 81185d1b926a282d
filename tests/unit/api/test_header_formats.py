"""Values of headers: what is a variable of Envoy's, and what stays a percent sign."""

from __future__ import annotations

import pytest

from meshd.api.header_formats import header_value


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "100%%",
        "%DOWNSTREAM_REMOTE_ADDRESS%",
        "from %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% over %PROTOCOL%",
        "%REQ(x-a)%",
        "%REQ(x-a?:authority):20%",
        "%RESP(server)%",
        "%START_TIME%",
        "t=%START_TIME(%s.%3f)%",
        "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)% %PROTOCOL%",
        "%DYNAMIC_METADATA(com.test.filter:key):7%",
        '%UPSTREAM_METADATA(["namespace", "key"])%',
        "%FILTER_STATE(io.istio.peer:PLAIN)%",
    ],
)
def test_variables_of_envoys_stay(text: str) -> None:
    assert header_value(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "100%",
        "%NO_SUCH_COMMAND%",
        "%DOWNSTREAM_SUCH%",
        "%UPSTREAM_METADATA%",
        "%REQ%",
        "%REQ()%",
        "%REQ(a b)%",
        "%REQ(a?b?c)%",
        "%REQ(x):99999999999999999999%",
        "%REQ(x-a)%/%START_TIME(%n)%",
        "%START_TIME(%9n)%",
        "%START_TIME(%)%",
        "%START_TIME:5%",
        "%PROTOCOL(x)%",
        "%DURATION:3%",
        "%DYNAMIC_METADATA%",
        "%FILTER_STATE(x:SUCH)%",
        "%FILTER_STATE(:PLAIN)%",
        "%REQUESTED_SERVER_NAME(X:Y)%",
        "%ENVIRONMENT(PATH)%",
    ],
)
def test_any_other_percent_sign_is_itself(text: str) -> None:
    """Envoy would refuse all routes of the port. The environment is the node's."""
    assert header_value(text) == text.replace("%", "%%")
