"""A node that runs for years renews its intermediate by itself."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from cryptography import x509

from meshd.base.errors import InvalidInputError
from meshd.ca import authority
from meshd.ca.standalone import Standalone
from meshd.ca.store import Store
from meshd.model.workload import Identity

_NOW = 1_800_000_000.0
_DAY = 86400.0
_A = Identity("cluster.local", "default", "a")


def _chain(signer: Standalone, now: float) -> list[x509.Certificate]:
    issued = asyncio.run(signer.sign(authority.request(_A, authority.new_key(), _DAY), now))
    return x509.load_pem_x509_certificates(issued.chain)


def test_the_intermediate_is_renewed_and_leaves_still_lead_to_the_root(tmp_path: Path) -> None:
    signer = Standalone(Store(tmp_path / "identity", "cluster.local", 1000 * _DAY), _NOW)
    (root,) = x509.load_pem_x509_certificates(signer.roots())
    seen: set[int] = set()
    for day in range(0, 990, 10):
        leaf, intermediate = _chain(signer, _NOW + day * _DAY)
        assert authority.is_issued_by(leaf, intermediate)
        assert authority.is_issued_by(intermediate, root)
        assert leaf.not_valid_after_utc.timestamp() > _NOW + (day + 0.9) * _DAY
        seen.add(intermediate.serial_number)
    assert len(seen) > 10


def test_while_it_cannot_be_renewed_the_old_one_serves_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signer = Standalone(Store(tmp_path / "identity", "cluster.local", 1000 * _DAY), _NOW)
    (tmp_path / "identity" / "root-key.pem").chmod(0o644)
    with caplog.at_level(logging.WARNING):
        for seconds in range(5):
            _chain(signer, _NOW + 60 * _DAY + seconds)
    (record,) = caplog.records
    assert "the intermediate CA is not renewed" in record.getMessage()
    assert "chmod 600" in record.getMessage()
    with pytest.raises(InvalidInputError, match="expired on"):
        _chain(signer, _NOW + 101 * _DAY)
    (tmp_path / "identity" / "root-key.pem").chmod(0o600)
    assert _chain(signer, _NOW + 102 * _DAY)
