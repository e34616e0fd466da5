"""Tests run on one thread: the machine's cores belong to the workflow tests, and the bits do not depend on them."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
