"""Sends the log of a run to Weights & Biases: `python log_wandb.py runs/NAME PROJECT`. Needs `pip install wandb`."""

import json
import pathlib
import sys
import tomllib

import wandb

folder = pathlib.Path(sys.argv[1])
plan = tomllib.loads((folder / "plan.toml").read_text())
with wandb.init(project=sys.argv[2], name=folder.name, config=plan) as run:
    for line in (folder / "log.jsonl").read_text().splitlines():
        values = json.loads(line)
        values |= values.pop("time", {})
        run.log(values, step=values.pop("step"))
    for picture in sorted((folder / "samples").glob("step-*.png")):
        run.log({"samples": wandb.Image(str(picture), caption=picture.stem)})
