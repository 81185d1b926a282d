"""What hosts are made of, built ahead of the tests: ``python3 -m tests.host.images``.

It needs nothing but Debian's own Python, so that it can run while all else is set up.
"""

from __future__ import annotations

from tests.host import packages
from tests.host.tree import base_tree


def main() -> None:
    base_tree()
    packages.both()


if __name__ == "__main__":
    main()
