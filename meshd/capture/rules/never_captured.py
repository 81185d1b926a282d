"""Traffic of the host's own services that is never captured, whatever is asked for."""

from __future__ import annotations

from typing import Final

from meshd.capture.rules.rule import Family

NEVER_OUTBOUND_PORTS: Final = (22, 15012, 15014, 15020, 15021)
"""ssh, and what meshd itself is reached at: an enrolled service must not need meshd for those."""
NEVER_INBOUND_PORTS: Final = frozenset(NEVER_OUTBOUND_PORTS)
METADATA_ADDRESSES: Final = {
    Family.IPV4: "169.254.169.254/32",
    Family.IPV6: "fd00:ec2::254/128",
}
"""Where clouds tell a machine about itself, and give it its credentials."""
