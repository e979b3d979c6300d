"""Sends the log of a run to Trackio: `python log_trackio.py runs/NAME PROJECT`. Needs `pip install trackio`."""

import json
import pathlib
import sys
import tomllib

import trackio

folder = pathlib.Path(sys.argv[1])
plan = tomllib.loads((folder / "plan.toml").read_text())
trackio.init(project=sys.argv[2], name=folder.name, config=plan)
for line in (folder / "log.jsonl").read_text().splitlines():
    values = json.loads(line)
    values |= values.pop("time", {})
    trackio.log(values, step=values.pop("step"))
trackio.finish()
