"""Runs in TensorBoard, MLflow and Weights & Biases; each is an optional package."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from evaluators.protocol import Failure
from search.inputs.input_error import InputError
from search.monitoring.callbacks import Callback, Finished, Resulted, Started

PROJECT = "merge-search"
"""Experiment (MLflow) or project (W&B), unless the user's own settings name another."""


def loggers(names: Sequence[str]) -> tuple[Callback, ...]:
    """The loggers of these names.

    Raises:
        InputError: With a line for each whose package is missing.
    """
    missing = [
        f"output.loggers: expected the package {package!r} for {name}, found none; "
        f"pip install 'merge-search[{name}]'"
        for name in names
        if importlib.util.find_spec(package := LOGGERS[name][0]) is None
    ]
    if missing:
        raise InputError(missing)
    return tuple(LOGGERS[name][1]() for name in names)


def metrics(event: Resulted) -> Iterator[tuple[str, float]]:
    """Names and values of a result; values that do not exist are left out."""
    found = {"best": event.best, "best_parent": event.best_parent}
    found |= {"lead": event.best - event.best_parent, "failures": float(event.failures)}
    found["questions"] = float(event.questions)
    outcome = event.outcome
    if not isinstance(outcome, Failure):
        prefix = event.phase
        found |= {f"{prefix}/score": outcome.value, f"{prefix}/stderr": outcome.stderr}
        found |= {f"{prefix}/task/{one.task}": one.value for one in outcome.tasks}
        found["build_seconds"] = outcome.build_seconds
        found["score_seconds"] = outcome.score_seconds
    return ((name, value) for name, value in found.items() if math.isfinite(value))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A config as dotted keys and texts."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return found


class TensorBoard:
    """Event files in the folder ``tensorboard`` of the run's."""

    def on_start(self, event: Started) -> None:
        """A resumed run adds a file; TensorBoard joins them."""
        module = importlib.import_module("tensorboardX")
        self._writer = module.SummaryWriter(
            str(event.folder / "tensorboard"), filename_suffix=f".{event.run}.{event.results}"
        )
        text = json.dumps(event.config, indent=2, ensure_ascii=False)
        self._writer.add_text("config", f"```\n{text}\n```", event.results)

    def on_result(self, event: Resulted) -> None:
        for name, value in metrics(event):
            self._writer.add_scalar(name, value, event.step)
        if isinstance(event.outcome, Failure):
            text = f"candidate {event.candidate}: {event.outcome.kind}: {event.outcome.message}"
            self._writer.add_text("failures", text, event.step)

    def on_finish(self, event: Finished) -> None:
        self._writer.add_text("verdict", event.verdict or "none")
        self._writer.close()


class MLflow:
    """A run of the experiment ``merge-search``, where MLflow's own settings say.

    Without ``MLFLOW_TRACKING_URI`` that is the SQLite file ``mlflow.db`` in the run's folder.
    """

    def on_start(self, event: Started) -> None:
        """A resumed run goes on in the same MLflow run."""
        mlflow = importlib.import_module("mlflow")
        tracking = importlib.import_module("mlflow.tracking")
        environment = importlib.import_module("mlflow.environment_variables")
        named = environment.MLFLOW_TRACKING_URI.get()
        uri = named or f"sqlite:///{(event.folder / 'mlflow.db').resolve()}"
        self._client = tracking.MlflowClient(tracking_uri=uri)
        name = environment.MLFLOW_EXPERIMENT_NAME.get() or PROJECT
        known = self._client.get_experiment_by_name(name)
        experiment = (
            known.experiment_id
            if known
            else self._client.create_experiment(
                name,
                artifact_location=None if named else (event.folder / "mlruns").resolve().as_uri(),
            )
        )
        query = f"tags.merge_search_run = '{event.run}'"
        found = self._client.search_runs([experiment], filter_string=query)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {"merge_search_run": event.run, "mlflow.runName": event.title}
        self._run = self._client.create_run(experiment, tags=tags).info.run_id
        params = [
            mlflow.entities.Param(_legal(key), text[:500])
            for key, text in flat(event.config).items()
        ]
        for at in range(0, len(params), 100):  # as many as one call may take
            self._client.log_batch(self._run, params=params[at : at + 100])

    def on_result(self, event: Resulted) -> None:
        entities = importlib.import_module("mlflow.entities")
        now = int(1000 * time.time())
        values = [
            entities.Metric(_legal(name), value, now, event.step) for name, value in metrics(event)
        ]
        self._client.log_batch(self._run, metrics=values)

    def on_finish(self, event: Finished) -> None:
        self._client.set_tag(self._run, "verdict", event.verdict[:5000] or "none")
        for path in event.files:
            self._client.log_artifact(self._run, str(path))
        status = "FINISHED" if event.complete else "KILLED"
        self._client.set_terminated(self._run, status=status)


class WandB:
    """A run of Weights & Biases; ``WANDB_MODE``, ``WANDB_PROJECT`` and the like hold."""

    def on_start(self, event: Started) -> None:
        """A resumed run goes on in the same W&B run."""
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=event.run,
            name=event.title,
            dir=str(event.folder),
            config=dict(event.config),
            resume="allow",
        )

    def on_result(self, event: Resulted) -> None:
        self._run.log(dict(metrics(event)), step=event.step)

    def on_finish(self, event: Finished) -> None:
        self._run.summary["verdict"] = event.verdict
        self._run.finish(exit_code=0 if event.complete else 1)


LOGGERS: dict[str, tuple[str, Callable[[], Callback]]] = {
    "tensorboard": ("tensorboardX", TensorBoard),
    "mlflow": ("mlflow", MLflow),
    "wandb": ("wandb", WandB),
}
"""Package and class of each logger by the name that a config gives."""


def _legal(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w\-. /:]", "_", name)
