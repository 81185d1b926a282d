"""What a Secret's data may be that is not base64."""

from __future__ import annotations

import pytest

from meshd.api.kubernetes.types import Secret


@pytest.mark.parametrize("text", ["\u2028", "\u00e9", "\ud800", "aGFsbG8=\u2028", "a", "="])
def test_an_entry_that_cannot_be_decoded_is_empty(text: str) -> None:
    secret = Secret(data={"tls.crt": text, "tls.key": "aGFsbG8="})
    assert secret.entry("tls.crt") == b""
    assert secret.entry("tls.key") == b"hallo"
