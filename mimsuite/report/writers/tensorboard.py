"""TensorBoard: event files in the run directory's ``tensorboard/``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from mimsuite.report.writers.base import RunIdentity


class TensorBoardWriter:
    """After a rewind a new event file says from which step on the older ones do not count."""

    replaces: ClassVar[bool] = True
    last_step: int | None = None

    def __init__(self, run: RunIdentity) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._open, self._folder = SummaryWriter, run.folder / "tensorboard"
        self._purge: int | None = None
        self._file: Any = None

    def metrics(self, step: int, values: dict[str, float]) -> None:
        file = self._writer()
        for name, value in values.items():
            file.add_scalar(name, value, step)
        file.flush()

    def picture(self, name: str, step: int, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))  # (H, W, 3)
        self._writer().add_image(name, pixels, step, dataformats="HWC")
        self._writer().flush()

    def rewind(self, step: int) -> None:
        self.close()
        self._purge = step + 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _writer(self) -> Any:
        if self._file is None:
            self._file = self._open(str(self._folder), purge_step=self._purge)
        return self._file
