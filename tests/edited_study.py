"""The smoke study as values, and edits of it."""

import json
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
Edit = Callable[[dict], None]


def smoke_study() -> dict:
    """Return the values of config/smoke.yaml, nothing of which is shared."""
    return json.loads(json.dumps(yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())))


def at(keys: str, value: object) -> Edit:
    """An edit that sets `runs.base.loss` and the like."""

    def edit(values: dict) -> None:
        *path, last = (int(key) if key.isdigit() else key for key in keys.split("."))
        for key in path:
            values = values[key]
        values[last] = value

    return edit


def also(network: str, metric: str = "fid", **values: object) -> Edit:
    return at("evaluate.also", [{"network": {"kind": network}, "metrics": [{"kind": metric}], **values}])


def aided(**values: object) -> Edit:
    return at("runs.vision_aided.discriminators.1", {"kind": "vision_aided", **values})


def heads_alone(**values: object) -> Edit:
    def edit(study: dict) -> None:
        run = study["runs"]["vision_aided"]
        run["discriminators"], run["regularizers"] = [{"kind": "vision_aided", **values}], []

    return edit


def denoiser(**fields: object) -> Edit:
    """A run more, `d`, that trains a denoiser at 32 pixels."""

    def edit(study: dict) -> None:
        training = json.loads(json.dumps(study["runs"]["base"]["training"]))
        study["runs"]["d"] = {"dataset": "land", "base": UNET, "loss": {"kind": "denoising"}, "training": training}
        for keys, value in fields.items():
            at(f"runs.d.{keys.replace('__', '.')}", value)(study)

    return edit


def stylegan2(group: int, processes: int = 1, **training: int) -> Edit:
    """A run more, `s`, whose discriminator takes minibatch standard deviations over groups, in so many processes."""

    def edit(study: dict) -> None:
        study["processes"] = processes
        batch = training.get("batch", 32)
        counts = {"total_nimg": 10 * batch, "snapshots": [10 * batch], "tick_nimg": batch, "checkpoint_nimg": batch}
        base = {"kind": "stylegan2", "channel_base": 64, "mbstd_group": group}
        study["runs"]["s"] = {"dataset": "land", "base": base, "training": {"batch": batch, **counts, **training}}

    return edit


UNET = {"kind": "unet", "channels": 8, "multipliers": [1, 2], "blocks": 1}


def stages(old: int, new: int) -> Edit:
    """A second stage that starts from the best snapshot of `vision_aided`."""

    def edit(study: dict) -> None:
        first = study["runs"]["vision_aided"]
        second = json.loads(json.dumps(first)) | {"continues": {"run": "vision_aided", "nimg": "best"}}
        first["discriminators"][1]["count"], second["discriminators"][1]["count"] = old, new
        study["runs"]["second"] = second

    return edit
