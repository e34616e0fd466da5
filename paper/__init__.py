"""From result files to what a paper shows: tidy CSV, tables, statistics, figures and a PDF. Never imports torch."""

import os

os.environ["MPLBACKEND"] = "agg"  # Before matplotlib is imported: a notebook's backend exists in the notebook alone.
