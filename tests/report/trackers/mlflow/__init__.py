"""The part of MLflow's client that the suite uses, over one JSON file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace


class MlflowClient:
    def __init__(self, address: str) -> None:
        assert address.startswith("file:///")
        self.path = Path(address.removeprefix("file://")) / "store.json"
        self.path.parent.mkdir(exist_ok=True)
        text = self.path.read_text() if self.path.exists() else '{"experiments": [], "runs": []}'
        self.store = json.loads(text)

    def get_experiment_by_name(self, name):
        if name not in self.store["experiments"]:
            return None
        return SimpleNamespace(experiment_id=str(self.store["experiments"].index(name)))

    def create_experiment(self, name):
        self.store["experiments"].append(name)
        return str(len(self.store["experiments"]) - 1)

    def search_runs(self, experiment_ids, filter_string):
        tag, value = re.fullmatch(r"tags\.`(.*)` = '(.*)'", filter_string).groups()
        return [
            SimpleNamespace(info=SimpleNamespace(run_id=run["id"]))
            for run in self.store["runs"]
            if run["tags"].get(tag) == value
        ]

    def create_run(self, experiment_id, tags=None, run_name=None):
        number = f"server-{len(self.store['runs'])}"
        self.store["runs"].append(
            {
                "id": number,
                "tags": tags,
                "status": "RUNNING",
                "metrics": [],
                "params": {},
                "png": [],
            }
        )
        self._save()
        return SimpleNamespace(info=SimpleNamespace(run_id=number))

    def update_run(self, run_id, status):
        self._run(run_id)["status"] = status
        self._save()

    def log_batch(self, run_id, metrics=(), params=()):
        assert len(params) <= 100
        run = self._run(run_id)
        run["metrics"] += [[one.key, one.value, one.step] for one in metrics]
        for one in params:
            assert run["params"].setdefault(one.key, one.value) == one.value  # never change
        self._save()

    def log_artifact(self, run_id, local_path, artifact_path):
        self._run(run_id)["png"].append(Path(local_path).name)
        self._save()

    def set_terminated(self, run_id):
        self.update_run(run_id, "FINISHED")

    def get_metric_history(self, run_id, key):
        rows = self._run(run_id)["metrics"]
        return [SimpleNamespace(step=step) for name, _, step in rows if name == key]

    def _run(self, run_id):
        return next(run for run in self.store["runs"] if run["id"] == run_id)

    def _save(self):
        new = self.path.with_suffix(".new")  # whole at every moment, as the tool's files are
        new.write_text(json.dumps(self.store))
        new.replace(self.path)
