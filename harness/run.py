"""Run one cell: `python -m harness.run baselines/l1.py --cell '{...}' --data FILE --out FOLDER/metrics.json`."""

import sys

from harness.runs.supervisor import main

if __name__ == "__main__":
    sys.exit(main())
