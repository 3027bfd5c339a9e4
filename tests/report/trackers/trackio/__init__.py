"""The part of trackio's interface that the suite uses; runs are JSON-lines files by name."""

from __future__ import annotations

import json
import os
from pathlib import Path


class Image:
    def __init__(self, path: str) -> None:
        self.path = path


class Run:
    def __init__(self, path: Path) -> None:
        self.file = path.open("a")

    def log(self, values: dict, step: int | None = None) -> None:
        shown = {k: v.path if isinstance(v, Image) else v for k, v in values.items()}
        self.file.write(json.dumps({"step": step, **shown}) + "\n")
        self.file.flush()

    def finish(self) -> None:
        self.file.close()


def init(*, project, name, config, resume, embed, auto_log_gpu, auto_log_cpu) -> Run:
    assert resume == "allow"
    print("noise of the tool")
    folder = Path(os.environ["TRACKIO_DIR"])
    folder.mkdir(exist_ok=True)
    return Run(folder / f"{project}.{name}.jsonl")
