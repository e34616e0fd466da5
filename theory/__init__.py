"""Theorems about dropout, checked by experiment: what is claimed, what is measured, what would refute it."""
