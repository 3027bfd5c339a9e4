#!/usr/bin/env python3
"""Check the suite against tensors that published code computed.

    .venv/bin/python tools/check_golden.py tests/goldens/image/mae-a.json [...]

Prints one JSON line a case. Exit code: 0 pass, 1 fail, 2 the case cannot be run (unknown kind,
missing field, a hyperparameter that the product does not do), 3 part of it is not built yet.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from golden.run import main

if __name__ == "__main__":
    sys.exit(main())
