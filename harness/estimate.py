"""The plan before the bill: `python -m harness.estimate [TABLE ...]`."""

import sys

from harness.plan.estimate import main

if __name__ == "__main__":
    sys.exit(main())
