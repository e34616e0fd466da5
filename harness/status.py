"""What is done, running or failed: `python -m harness.status [TABLE ...] [--watch]`."""

import sys

from harness.plan.status import main

if __name__ == "__main__":
    sys.exit(main())
