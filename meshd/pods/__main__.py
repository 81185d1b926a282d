"""The testbed's supervisor, ``python -m meshd.pods``; ``meshctl testbed up`` starts it."""

import sys

from meshd.pods.supervisor import main

sys.exit(main())
