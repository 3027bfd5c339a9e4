"""The checks of `mimsuite doctor`: packages, devices, limits, disk and network.

Nothing here imports torch in this process.
"""

from __future__ import annotations

from mimsuite.doctor.disk import check_disk
from mimsuite.doctor.engine import check_engine
from mimsuite.doctor.findings import Finding, State
from mimsuite.doctor.machine import check_limits, check_machine
from mimsuite.doctor.packages import check_packages
from mimsuite.doctor.store import check_store

__all__ = [
    "Finding",
    "State",
    "check_disk",
    "check_engine",
    "check_limits",
    "check_machine",
    "check_packages",
    "check_store",
]
