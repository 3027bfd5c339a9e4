"""MLflow: the server of MLFLOW_TRACKING_URI, else files in the run directory's ``mlruns/``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, ClassVar

from mimsuite.report.run_facts import leaves_of
from mimsuite.report.writers.base import RunIdentity

_TAG = "mimsuite.run"  # by which the run is found again: MLflow gives runs ids of its own
_EVERY_ROW = "epoch"  # a figure that every step has
_AT_ONCE = 100  # parameters in a request
_LONGEST = 500  # characters of a parameter


class MLflowWriter:
    """The client of the package, not its global run: nothing else in the process is touched."""

    replaces: ClassVar[bool] = False

    def __init__(self, run: RunIdentity) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        address = os.environ.get("MLFLOW_TRACKING_URI")
        if not address:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            address = (run.folder / "mlruns").as_uri()
        self._metric, self._client = Metric, MlflowClient(address)
        experiment = self._experiment(run.project)
        found = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{run.id}'")
        self.last_step: int | None = -1
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            history = self._client.get_metric_history(self._id, _EVERY_ROW)
            self.last_step = max((one.step for one in history), default=-1)
        else:
            made = self._client.create_run(experiment, tags={_TAG: run.id}, run_name=run.name)
            self._id = made.info.run_id
            self._parameters(run.config)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        now = int(1000 * time.time())
        rows = [self._metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=rows)

    def picture(self, name: str, step: int, path: Path) -> None:
        self._client.log_artifact(self._id, str(path), "images")

    def rewind(self, step: int) -> None:
        """Not asked for."""

    def close(self) -> None:
        self._client.set_terminated(self._id)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        made: str = self._client.create_experiment(name) if found is None else found.experiment_id
        return made

    def _parameters(self, config: dict[str, Any]) -> None:
        from mlflow.entities import Param

        rows = [Param(key, str(value)[:_LONGEST]) for key, value in leaves_of(config)]
        for start in range(0, len(rows), _AT_ONCE):
            self._client.log_batch(self._id, params=rows[start : start + _AT_ONCE])
