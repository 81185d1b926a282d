"""What the fields of each kind may say, and what objects say of one another.

After the API's own documentation: https://istio.io/latest/docs/reference/config/.
"""

from __future__ import annotations

from meshd.config.validate.dispatch import check_fields, stored_kinds
from meshd.config.validate.references import check_references
from meshd.config.validate.secret_contents import out_of_date
from meshd.config.validate.secrets import left_without

__all__ = ["check_fields", "check_references", "left_without", "out_of_date", "stored_kinds"]
