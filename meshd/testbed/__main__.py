"""``python -m meshd.testbed`` is the testbed's supervisor; ``meshctl testbed up`` starts it."""

import sys

from meshd.testbed.supervisor import main

sys.exit(main())
