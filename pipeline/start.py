"""Which snapshot a job starts from, where `select` has chosen it."""

import json
from pathlib import Path


def start_snapshot(inputs: dict[str, list[Path]], name: str) -> Path:
    """Return the one file of an input, or of several the one whose image count stands in the input `selected`."""
    if "selected" not in inputs:
        return inputs[name][0]
    nimg = json.loads(inputs["selected"][0].read_text())["nimg"]
    return next(path for path in inputs[name] if int(path.stem) == nimg)
