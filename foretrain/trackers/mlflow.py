"""MLflow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import PrivateAttr

from foretrain.comparison import flat
from foretrain.parts import Facts
from foretrain.trackers.base import Tracker, remember, remembered, require

_PARAMETERS_AT_ONCE = 100
_LONGEST = 500


class MLflow(Tracker):
    """A run on an MLflow server or in a local MLflow store."""

    kind: Literal["mlflow"] = "mlflow"
    facts: ClassVar[Facts] = Facts(answers="where else can the figures be watched? in MLflow")

    uri: str | None = None
    """Tracking URI, such as `http://HOST:5000` or `sqlite:///mlflow.db`; unset: what `MLFLOW_TRACKING_URI` says."""
    experiment: str = "foretrain"
    """Experiment that the run belongs to; made if there is none of that name."""

    _client: Any = PrivateAttr(None)
    _run: str = PrivateAttr("")
    _resumed: bool = PrivateAttr(False)
    _logged: dict[str, int] = PrivateAttr(default_factory=dict)

    def start(self, run: Path, name: str, recipe: Mapping[str, Any]) -> None:
        tracking = require("mlflow.tracking", self.kind)
        self._client = tracking.MlflowClient(tracking_uri=self.uri)
        known = remembered(run, self.kind)
        self._resumed = known is not None
        if known is not None:
            self._client.update_run(known, status="RUNNING")
            self._run = known
            return
        experiment = self._client.get_experiment_by_name(self.experiment)
        identity = experiment.experiment_id if experiment else self._client.create_experiment(self.experiment)
        self._run = self._client.create_run(identity, run_name=name).info.run_id
        self._log_parameters(recipe)
        remember(run, self.kind, self._run)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        entities = require("mlflow.entities", self.kind)
        now = int(time.time() * 1000)
        new = {name: value for name, value in figures.items() if step > self._last(name)}
        if new:
            metrics = [entities.Metric(name, value, now, step) for name, value in new.items()]
            self._client.log_batch(self._run, metrics=metrics)
            self._logged |= dict.fromkeys(new, step)

    def finish(self) -> None:
        if self._client is not None:
            self._client.set_terminated(self._run)
            self._client = None

    def _last(self, name: str) -> int:
        """The last step of a figure that the store has: it would keep both values of a step logged twice."""
        if name not in self._logged:
            history = self._client.get_metric_history(self._run, name) if self._resumed else []
            self._logged[name] = max((metric.step for metric in history), default=-1)
        return self._logged[name]

    def _log_parameters(self, recipe: Mapping[str, Any]) -> None:
        entities = require("mlflow.entities", self.kind)
        parameters = [entities.Param(key, str(value)[:_LONGEST]) for key, value in flat(recipe).items()]
        for start in range(0, len(parameters), _PARAMETERS_AT_ONCE):
            self._client.log_batch(self._run, params=parameters[start : start + _PARAMETERS_AT_ONCE])
