"""Shared fixtures: quiet threads, and no test ever reads or writes the user's own files."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("WDS_SECURE", "1")
