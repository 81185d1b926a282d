"""A proxy's reaction when its memory runs short: the largest consumers give way first.

https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/operations/overload_manager/overload_manager
"""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]

_SHED_FROM, _SHED_ALL = 0.80, 0.92
"""Fractions of the memory limit, between which ever more is shed."""
_WHEN_HEAP_IS_AT: Final = {
    "envoy.overload_actions.shrink_heap": 0.90,
    "envoy.overload_actions.disable_http_keepalive": 0.92,
    "envoy.overload_actions.stop_accepting_requests": 0.95,
    "envoy.overload_actions.stop_accepting_connections": 0.98,
}
"""Fractions of the memory limit: first give back, then refuse, and what is under way goes on."""
_SHORTEST: Final = {
    "HTTP_DOWNSTREAM_CONNECTION_IDLE": "10s",
    "HTTP_DOWNSTREAM_STREAM_FLUSH": "10s",
    "TRANSPORT_SOCKET_CONNECT": "1s",
}
"""To how much time-outs are reduced: of connections without a request, of responses that nobody
takes, of TLS handshakes."""
BUFFER_ACCOUNTS: Final[Json] = {"minimum_account_to_track_power_of_two": 15}
"""HTTP/2 streams whose buffers hold 32 KiB or more can be reset, those that hold most first."""


def actions(heap: str) -> list[Json]:
    """Return the actions; ``heap`` is the resource monitor that triggers them."""
    scaled = [{"name": heap, "scaled": _scaled()}]
    return [
        {"name": "envoy.overload_actions.reset_high_memory_stream", "triggers": scaled},
        {
            "name": "envoy.overload_actions.reduce_timeouts",
            "triggers": scaled,
            "typed_config": {
                "@type": "type.googleapis.com/"
                "envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
                "timer_scale_factors": [
                    {"timer": timer, "min_timeout": least} for timer, least in _SHORTEST.items()
                ],
            },
        },
        *(
            {"name": name, "triggers": [{"name": heap, "threshold": {"value": fraction}}]}
            for name, fraction in _WHEN_HEAP_IS_AT.items()
        ),
    ]


def _scaled() -> Json:
    return {"scaling_threshold": _SHED_FROM, "saturation_threshold": _SHED_ALL}
