"""Values of headers, in which variables of Envoy's stand for facts about the request.

https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#command-operators
"""

from __future__ import annotations

import re
from typing import Final

_CERTIFICATE: Final = ("URI_SAN", "DNS_SAN", "IP_SAN", "EMAIL_SAN", "OTHERNAME_SAN", "SUBJECT")
_PLAIN: Final = (
    *(
        f"DOWNSTREAM_{direct}{side}_{what}"
        for direct in ("", "DIRECT_")
        for side in ("REMOTE", "LOCAL")
        for what in ("ADDRESS", "ADDRESS_WITHOUT_PORT", "PORT")
    ),
    *(f"DOWNSTREAM_{side}_{what}" for side in ("LOCAL", "PEER") for what in _CERTIFICATE),
    *("DOWNSTREAM_PEER_ISSUER", "DOWNSTREAM_PEER_SERIAL", "DOWNSTREAM_PEER_FINGERPRINT_1"),
    *("DOWNSTREAM_PEER_FINGERPRINT_256", "DOWNSTREAM_PEER_CERT", "DOWNSTREAM_PEER_CERT_V_START"),
    *("DOWNSTREAM_PEER_CERT_V_END", "DOWNSTREAM_TLS_CIPHER", "DOWNSTREAM_TLS_VERSION"),
    *("DOWNSTREAM_TLS_SESSION_ID", "DOWNSTREAM_TRANSPORT_FAILURE_REASON"),
    *("DOWNSTREAM_HANDSHAKE_DURATION", "DOWNSTREAM_WIRE_BYTES_RECEIVED"),
    *("DOWNSTREAM_WIRE_BYTES_SENT", "DOWNSTREAM_HEADER_BYTES_RECEIVED"),
    *("DOWNSTREAM_HEADER_BYTES_SENT", "UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_REMOTE_PORT"),
    *("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "UPSTREAM_LOCAL_ADDRESS", "UPSTREAM_LOCAL_PORT"),
    *("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "UPSTREAM_HOST", "UPSTREAM_CLUSTER"),
    *("UPSTREAM_CLUSTER_RAW", "UPSTREAM_PROTOCOL", "UPSTREAM_PEER_SUBJECT"),
    *("UPSTREAM_PEER_ISSUER", "UPSTREAM_PEER_CERT", "UPSTREAM_PEER_CERT_V_START"),
    *("UPSTREAM_PEER_CERT_V_END", "UPSTREAM_TLS_SESSION_ID", "UPSTREAM_TLS_CIPHER"),
    *("UPSTREAM_TLS_VERSION", "UPSTREAM_TRANSPORT_FAILURE_REASON"),
    *("UPSTREAM_REQUEST_ATTEMPT_COUNT", "UPSTREAM_WIRE_BYTES_RECEIVED"),
    *("UPSTREAM_WIRE_BYTES_SENT", "UPSTREAM_HEADER_BYTES_RECEIVED", "UPSTREAM_HEADER_BYTES_SENT"),
    *("PROTOCOL", "HOSTNAME", "RESPONSE_CODE", "RESPONSE_FLAGS", "RESPONSE_CODE_DETAILS"),
    *("REQUESTED_SERVER_NAME", "ROUTE_NAME", "VIRTUAL_CLUSTER_NAME", "STREAM_ID"),
    *("CONNECTION_ID", "BYTES_RECEIVED", "BYTES_SENT", "DURATION", "TRACE_ID"),
)
"""Variables that are written without arguments."""
_HEADER: Final = r":?[A-Za-z0-9_-]+"
_TEXT: Final = r"[A-Za-z0-9_./:-]*[A-Za-z0-9_]"
_KEY: Final = r"[A-Za-z0-9_./-]+"
_LENGTH: Final = r"(?::[0-9]{1,9})?"
_MOMENT: Final = r"(?:[^()%\n]|%(?:[1-9]?f|[aAbBcCdDeFgGhHIjmMprRsSTuUVwWxXyYzZ]))*"
"""As strftime(3) has it, and with fractions of seconds. Envoy refuses the end of a line."""
_VARIABLES: Final = (
    "|".join(_PLAIN),
    rf"(?:REQ|RESP|TRAILER)\({_HEADER}(?:\?{_HEADER})?\){_LENGTH}",
    rf"START_TIME(?:\({_MOMENT}\))?",
    rf"DYNAMIC_METADATA\({_TEXT}\){_LENGTH}",
    rf"CLUSTER_METADATA\({_TEXT}\)",
    r"UPSTREAM_METADATA\((?:" + _TEXT + r'|\["[^"()%\\]+"(?:, ?"[^"()%\\]+")*\])\)',
    rf"FILTER_STATE\({_KEY}(?::(?:PLAIN|TYPED))?\){_LENGTH}",
)
_FORMATTED: Final = re.compile(rf"(?:[^%]|%%|%(?:{'|'.join(_VARIABLES)})%)*")


def header_value(text: str) -> str:
    """Return a header's value, in which Envoy's variables work (``%DOWNSTREAM_REMOTE_ADDRESS%``);
    with any other ``%``, all are literal.

    Envoy refuses all routes of a port for one variable that it does not know, or that is written in
    another way than here.
    """
    return text if is_known(text) else text.replace("%", "%%")


def is_known(text: str) -> bool:
    """Return whether a header's value has no variables but those that work."""
    return _FORMATTED.fullmatch(text) is not None
