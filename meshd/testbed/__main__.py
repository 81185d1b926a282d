"""The testbed's supervisor, ``python -m meshd.testbed``; ``meshctl testbed up`` starts it."""

import sys

from meshd.testbed.supervisor import main

sys.exit(main())
