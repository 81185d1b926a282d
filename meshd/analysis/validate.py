"""All checks in one place: the fields of each kind, and references between objects.

After the API's own documentation: https://istio.io/latest/docs/reference/config/.
"""

from __future__ import annotations

from meshd.analysis.reachability import check_reachable
from meshd.analysis.references import check_references
from meshd.analysis.referrers import newly_dangling
from meshd.api.dispatch import check_accepted, check_damaged, check_fields, stored_kinds
from meshd.api.secret_contents import out_of_date

__all__ = [
    "check_accepted",
    "check_damaged",
    "check_fields",
    "check_reachable",
    "check_references",
    "newly_dangling",
    "out_of_date",
    "stored_kinds",
]
