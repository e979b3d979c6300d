"""Sends the log of a run to MLflow: `python log_mlflow.py runs/NAME EXPERIMENT`. Needs `pip install mlflow`."""

import json
import pathlib
import sys
import tomllib

import mlflow

folder = pathlib.Path(sys.argv[1])
plan = tomllib.loads((folder / "plan.toml").read_text())
mlflow.set_experiment(sys.argv[2])
with mlflow.start_run(run_name=folder.name):
    mlflow.log_dict(plan, "plan.json")
    for line in (folder / "log.jsonl").read_text().splitlines():
        values = json.loads(line)
        values |= values.pop("time", {})
        mlflow.log_metrics(values, step=values.pop("step"))
    mlflow.log_artifacts(str(folder / "samples"), "samples")
