"""What a run leaves behind and says: run directory, console, pictures, curves, report page.

Importing this does not import torch or matplotlib.
"""

from mimsuite.console import say, warn
from mimsuite.report.announcements import banner, next_commands
from mimsuite.report.commands import next_steps
from mimsuite.report.curves import save_curves
from mimsuite.report.page import write_page
from mimsuite.report.pictures import save_batch, save_panels
from mimsuite.report.progress import Progress, progress
from mimsuite.report.run_directory import RunDirectory
from mimsuite.report.status import Status, status_of
from mimsuite.report.training_pictures import draw_panels, first_pictures

__all__ = [
    "Progress",
    "RunDirectory",
    "Status",
    "banner",
    "draw_panels",
    "first_pictures",
    "next_commands",
    "next_steps",
    "progress",
    "save_batch",
    "save_curves",
    "save_panels",
    "say",
    "status_of",
    "warn",
    "write_page",
]
