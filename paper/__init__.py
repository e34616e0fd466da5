"""From result files to what a paper shows: tidy CSV, tables, statistics, figures and a PDF. Never imports torch."""
