"""The parts of ``tools/gpu_report.py``, one a file, in order of worth."""
